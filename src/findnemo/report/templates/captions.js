"use strict";
(() => {
  const list = document.getElementById("list");
  const tools = document.getElementById("tools");
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    const outer = target && target.closest("details:not([open])");
    if (outer) outer.open = true;
    const own = target && target.querySelector(":scope > details");
    if (own) own.open = true;
    if (outer) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();
  if (!list) return;
  const [search, order, told] = ["search", "order", "told"].map((id) => document.getElementById(id));
  const folds = [...list.querySelectorAll(".fold")];
  const lines = [...list.querySelectorAll(".line")].map((line) => ({
    line,
    home: line.parentElement,
    text: line.querySelector(".sum").textContent.toLowerCase(),
  }));
  const value = ({ line }, key) => (line.dataset[key] ? Number(line.dataset[key]) : -Infinity);
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [key, direction] = order.value.split(" ");
    const sorted = key ? [...lines].sort((a, b) => direction * (value(a, key) - value(b, key) || 0)) : lines;
    const isAsked = Boolean(words.length || key);
    let found = 0;
    for (const one of sorted) {
      one.line.hidden = !words.every((word) => one.text.includes(word));
      found += !one.line.hidden;
      (isAsked ? list : one.home).append(one.line);
    }
    for (const fold of folds) {
      fold.hidden = isAsked;
      if (!isAsked) list.append(fold);
    }
    told.textContent = isAsked ? `${found} of ${lines.length}` : "";
  };
  search.addEventListener("input", show);
  order.addEventListener("change", show);
  tools.hidden = false;
})();
