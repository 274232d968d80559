// Drives Chromium for score.py: a line of JSON in, a line of JSON out, until the input ends.
//   {"look": url, "width": 412, "height": 823, "scale": 1.75, "mobile": true}  what a reader sees of the page, with three pictures of it
//   {"audit": url}                                                            Lighthouse's performance and accessibility
// Scripts of pages are off (score.py's server says so too); what runs in the page is what stands here.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [, , data, chromium] = process.argv;
const { resolve } = createRequire(pathToFileURL(`${data}/package.json`));
const load = (name) => import(pathToFileURL(createRequire(resolve("lighthouse")).resolve(name)));
const [puppeteer, lighthouse] = await Promise.all([load("puppeteer-core"), import(pathToFileURL(resolve("lighthouse")))]);

// No sandbox of its own: this whole process tree runs in one that allows no other inside. --no-zygote: a zygote asks to drop
// capabilities that nobody here has, and takes the refusal for a failure.
const FLAGS = ["--no-sandbox", "--no-zygote", "--disable-dev-shm-usage", "--disable-gpu", "--disable-breakpad", "--hide-scrollbars"];
const browser = await puppeteer.default.launch({
  executablePath: chromium,
  pipe: true,
  headless: true,
  userDataDir: `${process.cwd()}/profile`,
  args: FLAGS,
});

// Lighthouse reckons (throttlingMethod: simulate, its default) how the page would load over a line of its "regular 3G". The processor
// is taken as it is, not as a fourth of it: a theme has no scripts, so a slower one would only magnify what else this machine does.
// The server is beside us: waiting long for silence would measure nothing.
const SETTINGS = {
  logLevel: "error",
  output: [],
  onlyCategories: ["performance", "accessibility"],
  skipAudits: ["bf-cache", "screenshot-thumbnails", "final-screenshot"],
  throttlingMethod: "simulate",
  throttling: { rttMs: 300, throughputKbps: 700, cpuSlowdownMultiplier: 1 },
  disableFullPageScreenshot: true,
  pauseAfterFcpMs: 100,
  pauseAfterLoadMs: 100,
  networkQuietThresholdMs: 250,
  cpuQuietThresholdMs: 250,
};

function collect() {
  const box = (rect) => [rect.left + scrollX, rect.top + scrollY, rect.width, rect.height].map((x) => Math.round(x * 100) / 100);
  const path = (address) => new URL(address, location.href).pathname.slice(1);
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.data.trim()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const style = getComputedStyle(node.parentElement);
    texts.push({
      text: node.data,
      size: parseFloat(style.fontSize),
      shown: node.parentElement.checkVisibility({ opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true }),
      boxes: [...range.getClientRects()].map(box),
    });
  }
  const pictures = [...document.images].map((image) => ({
    file: path(image.currentSrc || image.src),
    alt: image.alt,
    loaded: image.complete && image.naturalWidth > 0,
    box: box(image.getBoundingClientRect()),
  }));
  const links = [...document.links].map((link) => [path(link.href), link.textContent]);
  const { scrollWidth, scrollHeight } = document.documentElement;
  return { texts, pictures, links, screen: [innerWidth, innerHeight], page: [scrollWidth, scrollHeight] };
}

async function picture(page, css) {
  const style = css && (await page.addStyleTag({ content: css }));
  const bytes = await page.screenshot({ fullPage: true, encoding: "base64" });
  await style?.evaluate((element) => element.remove());
  return bytes;
}

async function look({ look: url, width, height, scale, mobile }) {
  const page = await browser.newPage();
  await page.setViewport({ width, height, deviceScaleFactor: scale, isMobile: mobile, hasTouch: mobile });
  await page.goto(url, { waitUntil: "load" });
  await page.evaluate(async () => {
    scrollTo(0, document.documentElement.scrollHeight); // what loads lazily loads now
    await Promise.all([document.fonts.ready, ...[...document.images].map((image) => image.decode().catch(() => {}))]);
    scrollTo(0, 0);
  });
  const seen = await page.evaluate(collect);
  seen.drawn = await picture(page);
  seen.wordless = await picture(page, "* { color: transparent !important; text-decoration-color: transparent !important }");
  seen.unpictured = seen.pictures.length ? await picture(page, "img { visibility: hidden !important }") : null;
  await page.close();
  return seen;
}

async function audit({ audit: url }) {
  const page = await browser.newPage();
  const { lhr, artifacts } = await lighthouse.default(url, SETTINGS, undefined, page);
  await page.close();
  const of = (name) => lhr.audits[name]?.numericValue ?? null;
  const failed = (name) =>
    lhr.categories[name].auditRefs
      .map(({ id }) => lhr.audits[id])
      .filter(({ score }) => score !== null && score < 0.9)
      .map(({ id, title, score, displayValue, details }) => ({
        id,
        title,
        score,
        value: displayValue ?? "",
        items: (Array.isArray(details?.items) ? details.items : []).slice(0, 4).map((item) => item.node?.snippet ?? item.url ?? "").filter(Boolean),
      }));
  return {
    error: lhr.runtimeError ?? null,
    performance: lhr.categories.performance.score,
    accessibility: lhr.categories.accessibility.score,
    fcp: of("first-contentful-paint"),
    lcp: of("largest-contentful-paint"),
    speed_index: of("speed-index"),
    tbt: of("total-blocking-time"),
    cls: of("cumulative-layout-shift"),
    bytes: of("total-byte-weight"),
    failed: [...failed("performance"), ...failed("accessibility")],
    undecided: (artifacts.Accessibility?.incomplete ?? []).map(({ id, nodes }) => [
      id,
      nodes.map(({ node, failureSummary }) => `${node?.snippet} ${failureSummary ?? ""}`),
    ]),
  };
}

try {
  for await (const line of createInterface({ input: process.stdin })) {
    const asked = JSON.parse(line);
    process.stdout.write(`${JSON.stringify(await (asked.look ? look(asked) : audit(asked)))}\n`);
  }
} finally {
  await browser.close();
}
