"use strict";
(() => {
  const origins = JSON.parse(document.getElementById("origins").textContent);
  const dialog = document.getElementById("origin");
  const root = document.documentElement;

  const element = (name, text) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const shown = (value) => {
    if (value !== null && typeof value === "object") {
      return Object.entries(value).map(([name, inner]) => `${name}: ${shown(inner)}`).join(", ") || "defaults";
    }
    return typeof value === "string" && !value.trim() ? JSON.stringify(value) : String(value);
  };
  const list = (entries) => {
    const made = element("dl");
    for (const [name, value] of Object.entries(entries)) {
      if (value === null || value === "") continue;
      made.append(element("dt", name.replaceAll("_", " ")), element("dd", shown(value)));
    }
    return made;
  };

  const fill = (origin) => {
    document.getElementById("origin-title").textContent = origin.title;
    const body = document.getElementById("origin-body");
    body.replaceChildren();
    for (const metric of origin.metrics) body.append(element("h3", metric.metric), list({ ...metric, metric: null }));
    if (origin.published) body.append(list({ paper: origin.published }));
    if (Object.keys(origin.files).length) body.append(element("h3", "Files"), list(origin.files));
    body.append(element("h3", "How it was measured"), list(origin.protocol));
    for (const stage of origin.stages) {
      body.append(element("h3", stage.missing ? `${stage.stage}: provenance is missing` : stage.stage));
      body.append(list({ ...stage, stage: null, missing: null }));
    }
  };

  const open = (key) => {
    if (!(key in origins) || dialog.open) return;
    fill(origins[key]);
    history.replaceState(null, "", `#number/${key}`);
    dialog.showModal();
    dialog.scrollTop = 0;
  };

  document.querySelectorAll("button.origin").forEach((button) => {
    button.addEventListener("click", () => open(button.dataset.key));
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
  const asked = () => {
    const [place, ...key] = decodeURIComponent(location.hash.slice(1)).split("/");
    if (place === "number") open(key.join("/"));
  };
  window.addEventListener("hashchange", asked);
  asked();

  const toggle = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { toggle.textContent = dark() ? "Light" : "Dark"; };
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  name();
})();
