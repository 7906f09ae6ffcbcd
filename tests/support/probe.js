// Runs before anything else of a page: collects what goes wrong, and tells at the end what it saw.
"use strict";
const seen = [];
for (const kind of ["error", "warn"]) { const was = console[kind]; console[kind] = (...a) => { seen.push(a.join(" ")); was(...a); }; }
addEventListener("error", (e) => seen.push(e.message || "a resource did not load"), true);
addEventListener("unhandledrejection", (e) => seen.push(String(e.reason)));
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((d) => (d.open = true));
  const wide = [...document.querySelectorAll("body *")].filter((e) => {
    if (e.closest(".scroll, nav, svg, pre, #tip")) return false;
    const box = e.getBoundingClientRect();
    return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1);
  });
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const over = (top, below) => top.slice(0, 3).map((c, i) => (c * top[3] + below[i] * (255 - top[3])) / 255).concat(255);
  const behind = (e) => { let layers = []; for (; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor)); return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 255]); };
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  let faint = [];
  for (const e of document.querySelectorAll("h1, h2, h3, p, td, th, a, summary, dd, dt, li, figcaption, label, small, i, b, text")) {
    if (!e.textContent.trim() || !e.getClientRects().length) continue;
    const back = behind(e.closest("svg") ? e.closest("figure") : e);
    const front = over(rgba(e.tagName === "text" ? getComputedStyle(e).fill : getComputedStyle(e).color), back);
    const ratio = contrast(front, back);
    // Text in a heat map stands on its cell, which is another element; the scale was chosen for it.
    if (ratio < 4.4) faint.push(`${e.tagName} ${e.className.baseVal ?? e.className} "${e.textContent.trim().slice(0, 30)}" ${ratio.toFixed(2)}`);
  }
  const broken = [...document.querySelectorAll('a[href^="#"]')].filter((a) => !document.getElementById(a.getAttribute("href").slice(1)));
  const matrix = document.querySelector(".matrix td.ok a"), before = matrix.textContent;
  const metric = document.getElementById("metric"); metric.selectedIndex = 3; metric.dispatchEvent(new Event("change"));
  const filter = document.getElementById("filter"); filter.value = "sglang"; filter.dispatchEvent(new Event("input"));
  const shown = [...document.querySelectorAll(".sortable tr[data-to]")].filter((r) => !r.hidden).length;
  const heads = [...document.querySelectorAll(".sortable thead th")]; heads[heads.length - 1].querySelector("button").click();
  const hit = document.querySelector(".hit"); const box = hit.getBoundingClientRect();
  hit.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: box.x, clientY: box.y }));
  const tip = document.getElementById("tip");
  const found = { width: innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches, background: getComputedStyle(document.body).backgroundColor,
    overflow: document.documentElement.scrollWidth - innerWidth, wide: wide.slice(0, 5).map((e) => e.outerHTML.slice(0, 120)), faint: faint.slice(0, 8), broken: broken.length,
    svgs: document.querySelectorAll("svg").length, unnamed: [...document.querySelectorAll("svg")].filter((s) => !s.getAttribute("aria-label")).length,
    sections: [...document.querySelectorAll("section[id]")].map((s) => s.id), recoloured: before !== matrix.textContent, shown,
    sorted: heads[heads.length - 1].getAttribute("aria-sort"), tip: tip.hidden ? "" : tip.textContent, seen };
  (parent === window ? window : parent).postMessage(JSON.stringify(found), "*");
});
