"use strict";
(() => {
  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const stage = document.querySelector(".stage");
  const svg = stage.querySelector("svg");
  const size = svg.viewBox.baseVal;
  const steps = all(document, ".steps > li");
  const parts = all(svg, "g.node, g.wire");
  const named = (kind, key) => parts.find((part) => part.matches(`.${kind}`) && part.dataset.key === key);
  const said = document.getElementById("said");

  // Zoom: the middle of what is seen stays in the middle.
  let zoom = 1;
  const zoomTo = (value) => {
    const x = (stage.scrollLeft + stage.clientWidth / 2) / zoom;
    const y = (stage.scrollTop + stage.clientHeight / 2) / zoom;
    zoom = Math.min(Math.max(value, 0.02), 8);
    svg.setAttribute("width", size.width * zoom);
    svg.setAttribute("height", size.height * zoom);
    stage.scrollTo(x * zoom - stage.clientWidth / 2, y * zoom - stage.clientHeight / 2);
  };
  const whole = () => {
    const room = [stage.offsetWidth - 24, 0.75 * window.innerHeight - 24];
    zoomTo(Math.min(1, room[0] / size.width, room[1] / size.height));
  };

  // The sweep: `done` links have been passed, the end's own gradient stands there always.
  let done = steps.length;
  const show = (count) => {
    done = Math.min(Math.max(count, 0), steps.length);
    const later = new Set(steps.slice(done).map((step) => step.dataset.wire));
    for (const part of parts.filter((p) => p.matches(".wire"))) {
      part.querySelector(".gradient").classList.toggle("pending", later.has(part.dataset.key));
    }
    all(document, ".now").forEach((part) => part.classList.remove("now"));
    steps.forEach((step) => step.removeAttribute("aria-current"));
    const at = steps[done - 1];
    if (at) {
      at.setAttribute("aria-current", "step");
      at.parentElement.scrollTop = at.offsetTop - at.parentElement.offsetTop - 60;
      for (const part of [named("node", at.dataset.box), named("wire", at.dataset.wire)]) {
        if (part) part.classList.add("now");
      }
    }
    const place = `${done} of ${steps.length}`;
    said.textContent = at ? `${place}: ${at.textContent}` : `${place}: only the end has its gradient`;
    const ends = { first: done === 0, back: done === 0, next: done === steps.length, last: done === steps.length };
    for (const [name, off] of Object.entries(ends)) {
      document.querySelector(`[data-do="${name}"]`).setAttribute("aria-disabled", String(off));
    }
  };
  const follow = (count) => {
    show(count);
    const part = svg.querySelector(".node.now");
    if (!part) return;
    const box = part.getBoundingClientRect();
    const seen = stage.getBoundingClientRect();
    stage.scrollBy(box.x + box.width / 2 - seen.x - seen.width / 2, box.y + box.height / 2 - seen.y - seen.height / 2);
  };

  const choose = (part) => {
    const key = `${part.matches(".node") ? "node" : "wire"} ${part.dataset.key}`;
    parts.forEach((other) => other.classList.toggle("chosen", other === part));
    for (const detail of all(document, ".detail")) {
      detail.hidden = detail.dataset.for !== key;
      if (!detail.hidden) document.getElementById("chosen-title").textContent = detail.dataset.title;
    }
  };

  const actions = {
    "zoom-in": () => zoomTo(zoom * 1.25),
    "zoom-out": () => zoomTo(zoom / 1.25),
    "zoom-whole": whole,
    first: () => follow(0),
    back: () => follow(done - 1),
    next: () => follow(done + 1),
    last: () => follow(steps.length),
  };
  const keys = { "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", 0: "zoom-whole", n: "next", p: "back", Home: "first", End: "last" };
  for (const button of all(document, "[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }
  document.getElementById("graph").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const part = event.target.closest("g.node, g.wire");
    if (part && (event.key === "Enter" || event.key === " ")) {
      choose(part);
    } else if (event.key in keys) {
      actions[keys[event.key]]();
    } else {
      return;
    }
    event.preventDefault();
  });

  // A press that moves is a drag; one that does not, a choice.
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) {
      drag = { x: event.clientX, y: event.clientY, moved: false };
    }
  });
  window.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(x, y) < 4) return;
    stage.scrollBy(-x, -y);
    drag = { x: event.clientX, y: event.clientY, moved: true };
  });
  window.addEventListener("pointerup", () => setTimeout(() => { drag = null; }));
  stage.addEventListener("click", (event) => {
    const part = event.target.closest("g.node, g.wire");
    if (part && !(drag && drag.moved)) choose(part);
  });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoomTo(zoom * Math.exp(-event.deltaY / 300));
  }, { passive: false });
  show(steps.length);
  all(document, ".now").forEach((part) => part.classList.remove("now"));
})();
