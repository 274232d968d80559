// A chat host as small as one can be, made with the protocol's own library: it shows the panel in a frame, hands it the answer of a
// tool, and passes on what it reads to the real server (window.readResource, by the test).

import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";

window.show = async (html, result, { theme = "light", resources = true } = {}) => {
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.style = "width: 100%; height: 700px; border: 0";
  document.body.append(frame);
  const capabilities = resources ? { serverResources: {}, openLinks: {} } : { openLinks: {} };
  const bridge = new AppBridge(null, { name: "test-host", version: "1" }, capabilities, { hostContext: { theme, displayMode: "inline" } });
  window.sizes = [];
  bridge.onsizechange = (size) => { window.sizes.push(size); };
  if (resources) bridge.onreadresource = async ({ uri }) => JSON.parse(await window.readResource(uri));
  const ready = new Promise((done) => { bridge.oninitialized = done; });
  await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  frame.srcdoc = html;
  await ready;
  await bridge.sendToolInput({ arguments: {} });
  await bridge.sendToolResult(result);
  window.bridge = bridge;
};
