// What the server has told, and who wants to know when it tells more.

export const store = { rows: new Map(), order: [], head: null, now: null, words: "", live: false };
const listeners = new Set();
export const listen = (act) => listeners.add(act);
const tell = (what) => listeners.forEach((act) => act(what));

const AGAIN = 5000, AWAY = 10000; // milliseconds until another try, and until a page that nobody sees lets its connection go
let source = null, wanted = null, leaving = 0;

// A browser has six connections to one server for all its pages: one that is not seen needs none.
document.addEventListener("visibilitychange", () => {
  clearTimeout(leaving);
  if (document.hidden) leaving = setTimeout(() => { source?.close(); source = null; }, AWAY);
  else if (!source && wanted) connect(...wanted);
});

// After an answer that was no stream a browser does not try again by itself.
async function lost() {
  if (source?.readyState !== EventSource.CLOSED) return;
  source = null;
  const answer = await fetch("/", { method: "HEAD" }).catch(() => null);
  if (answer?.status === 401) { store.words = "This page needs a new link: autoresearch-mcp dashboard --link"; tell("trouble"); }
  setTimeout(() => { if (!source && wanted && !document.hidden) connect(...wanted); }, AGAIN);
}

export function connect(session, everyone) {
  wanted = [session, everyone];
  source?.close();
  const query = new URLSearchParams();
  if (session) query.set("session", session);
  if (everyone) query.set("everyone", "1");
  source = new EventSource(`/events?${query}`);
  source.addEventListener("open", () => { store.live = true; tell("live"); });
  source.addEventListener("error", () => { store.live = false; tell("live"); lost(); });
  source.addEventListener("night", (event) => { store.rows.clear(); take(JSON.parse(event.data)); });
  source.addEventListener("rows", (event) => take(JSON.parse(event.data)));
  source.addEventListener("now", (event) => { store.now = JSON.parse(event.data); tell("now"); });
  for (const name of ["empty", "trouble"]) {
    source.addEventListener(name, (event) => { store.words = JSON.parse(event.data).words; tell(name); });
  }
}

function take({ fields, rows, head }) {
  for (const row of rows) {
    const made = Object.fromEntries(fields.map((name, place) => [name, row[place]]));
    made.text = `${made.number} ${made.description} ${made.session}`.toLowerCase();
    store.rows.set(made.number, made);
  }
  store.order = [...store.rows.values()].sort((a, b) => a.number - b.number);
  store.head = head;
  store.words = "";
  tell("night");
}

export async function experiment(number) {
  const answer = await fetch(`/experiment/${number}`);
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}
