// What the theme leaves undone for the keyboard and the phone.

// Formulas, code and tables that are wider than the page scroll in boxes of their own: as long as they do, the keyboard
// can reach them.
const boxes = "mjx-container[display], pre, .pst-scrollable-table-container";
const reach = () => {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  }
};
addEventListener("load", () => MathJax.startup.promise.then(reach));
addEventListener("resize", reach);

// On a phone the contents are a dialog: it closes when a place is chosen.
for (const menu of document.querySelectorAll("dialog")) {
  menu.addEventListener("click", (event) => event.target.closest("a") && menu.close());
}

// A figure with a slider has all its frames in the page, one of them shown: moving the slider shows another. Below the
// track stands the value of each frame, to be clicked on.
const comesNear = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      comesNear.unobserve(target);
      for (const image of target.querySelectorAll("img")) image.loading = "eager"; // hidden pictures too: no frame flashes
    }
  },
  { rootMargin: "400px" },
);
for (const box of document.querySelectorAll(".figure-frame[data-values]")) {
  const values = JSON.parse(box.dataset.values);
  const slider = document.createElement("div");
  slider.className = "slider";
  slider.innerHTML =
    '<label><span></span><input type="range" min="0" step="1"></label>' +
    '<output aria-live="off"></output><div class="stops" aria-hidden="true"></div>';
  const [name, input, output, stops] = ["span", "input", "output", ".stops"].map((part) => slider.querySelector(part));
  name.textContent = JSON.parse(box.dataset.parameter);
  input.max = values.length - 1;
  input.value = box.dataset.first;
  const show = () => {
    const now = Number(input.value);
    output.textContent = values[now];
    input.setAttribute("aria-valuetext", values[now]);
    [...stops.children].forEach((stop, k) => stop.classList.toggle("now", k === now));
    box.querySelectorAll("img").forEach((image, k) => (image.hidden = k >> 1 !== now));
  };
  values.forEach((value, k) => {
    const stop = stops.appendChild(document.createElement("span"));
    stop.textContent = value;
    stop.addEventListener("click", () => {
      input.value = k;
      input.focus();
      show();
    });
  });
  input.addEventListener("input", show);
  show();
  box.after(slider);
  comesNear.observe(box);
}
