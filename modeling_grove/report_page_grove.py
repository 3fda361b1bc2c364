"""The interactive view of a grounded caption as CSS, JavaScript and an HTML page: what `report_grove` fills in.

The view plays a clip with boxes over it, shows the caption with coloured phrases and, for every phrase, its objectness
over time. It makes presence anew for any threshold, without a model and without a server. The same view stands in a page
of its own, which loads nothing, and in the demo Space. All text from captions and file names goes through `textContent`.
"""

# Colours that the surroundings may set: --grove-text, --grove-muted, --grove-line, --grove-card, --grove-accent.
VIEW_CSS = """
.grove { container-type: inline-size; color: var(--grove-text, #1b1f24);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.grove *, .grove *::before { box-sizing: border-box; }
.grove button { font: inherit; color: inherit; cursor: pointer; }
.grove-caption { margin: 0; font-size: 22px; line-height: 1.75; overflow-wrap: anywhere; }
.grove-phrase { padding: 2px 7px 3px; border: 0; border-radius: 7px; cursor: pointer; background: var(--phrase);
  color: var(--phrase-ink); -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.grove-phrase.absent { background: transparent; color: inherit; box-shadow: inset 0 -3px 0 var(--phrase); border-radius: 3px; }
.grove-phrase.on, .grove-phrase:focus-visible { outline: 2px solid currentColor; outline-offset: 1px; }
.grove-parts { display: grid; gap: 22px 28px; grid-template-columns: minmax(0, 1fr); }
@container (min-width: 680px) {
  .grove-parts { grid-template-columns: minmax(0, min(54%, var(--width))) minmax(0, 1fr); align-items: start; }
  .grove-parts > :first-child { position: sticky; top: 16px; }  /* many phrases make long columns */
}
.grove-screen { position: relative; max-width: var(--width); margin: 0 auto; overflow: hidden; border-radius: 10px;
  background: #111418; }
.grove-screen video { display: block; width: 100%; height: 100%; object-fit: fill; cursor: pointer; }
.grove-boxes { position: absolute; inset: 0; pointer-events: none; }
.grove-box { position: absolute; border: 3px solid var(--phrase); border-radius: 3px; box-shadow: 0 0 0 1px rgba(0, 0, 0, .55),
  inset 0 0 0 1px rgba(0, 0, 0, .35); }
.grove-tag { position: absolute; max-width: 70%; padding: 1px 6px; border-radius: 4px; overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis; font-size: 13px; line-height: 18px; background: var(--phrase); color: var(--phrase-ink); }
.grove-boxes.some .dim { opacity: .15; }
.grove-box.on { border-width: 4px; background: color-mix(in srgb, var(--phrase) 24%, transparent); }
.grove-controls { display: flex; align-items: center; gap: 12px; max-width: var(--width); margin: 10px auto 0; }
.grove-play { flex: none; width: 40px; height: 40px; padding: 0; border: 1px solid var(--grove-line, #d9dde4); border-radius: 50%;
  background: var(--grove-card, #fff); display: grid; place-items: center; }
.grove-play svg { width: 16px; height: 16px; fill: currentColor; }
.grove-controls input { flex: 1; min-width: 0; margin: 0; accent-color: var(--grove-muted, #596273); }
.grove-time { flex: none; min-width: 84px; text-align: right; color: var(--grove-muted, #596273);
  font-variant-numeric: tabular-nums; }
.grove-rows { position: relative; display: grid; gap: 14px; }
.grove-row { cursor: pointer; }
.grove-name { display: flex; align-items: baseline; gap: 8px; margin-bottom: 5px; }
.grove-name::before { content: ""; flex: none; width: 11px; height: 11px; border-radius: 3px; background: var(--phrase); }
.grove-name b { min-width: 0; font-weight: 600; overflow-wrap: anywhere; }
.grove-name span { flex: none; margin-left: auto; color: var(--grove-muted, #596273); font-size: 13px;
  font-variant-numeric: tabular-nums; }
.grove-lane { position: relative; height: 34px; border-radius: 6px; overflow: hidden;
  background: color-mix(in srgb, var(--grove-muted, #596273) 15%, transparent); }
.grove-row.on .grove-lane, .grove-row:focus-visible .grove-lane { outline: 2px solid var(--phrase); outline-offset: 1px; }
.grove-row:focus-visible { outline: none; }
.grove-lane svg { display: block; width: 100%; height: 100%; fill: var(--phrase); }
.grove-lane .absent { opacity: .38; }
.grove-limit { position: absolute; left: 0; right: 0; height: 0; border-top: 1px dashed var(--grove-text, #1b1f24); opacity: .7; }
.grove-head { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: var(--grove-text, #1b1f24); }
.grove-axis { display: flex; justify-content: space-between; margin-top: 6px; color: var(--grove-muted, #596273); font-size: 13px;
  font-variant-numeric: tabular-nums; }
.grove-none { margin: 0; color: var(--grove-muted, #596273); }
"""

VIEW_JS = """
function groveView(root, data) {
  const record = data.record, phrases = record.phrases, samples = record.frame_indices;
  const first = record.clip_start_frame, total = record.clip_end_frame - first + 1;
  const known = record.tracks.map(track => track.boxes.map(box => box !== null));
  let presence = record.tracks.map(track => track.presence), moved = false, active = null, shown = -1;
  const seconds = frame => (frame - first) / data.rate;

  function make(parent, tag, name, text) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    if (parent) parent.appendChild(element);
    return element;
  }
  function dress(element, phrase) {
    element.style.setProperty("--phrase", data.colors[phrase]);
    element.style.setProperty("--phrase-ink", data.inks[phrase]);
    return element;
  }
  // Hovering and the keyboard light up a phrase; a click goes to where it is first seen.
  function listen(element, phrase, seeks) {
    element.tabIndex = 0;
    element.setAttribute("role", "button");
    for (const name of ["mouseenter", "focus"]) element.addEventListener(name, () => highlight(phrase));
    for (const name of ["mouseleave", "blur"]) element.addEventListener(name, () => highlight(null));
    const go = () => { if (seeks && !marks(frameNow()).some(mark => mark.phrase === phrase)) seekTo(phrase); };
    element.addEventListener("click", go);
    element.addEventListener("keydown", event => { if (event.key === "Enter") go(); });
  }

  root.replaceChildren();
  root.classList.add("grove");
  const words = [];
  if (data.caption) {
    const caption = make(root, "p", "grove-caption");
    caption.dir = "auto";
    for (const [text, phrase] of data.pieces) {
      if (phrase === null) { caption.append(text); continue; }
      const word = dress(make(caption, "span", "grove-phrase", text), phrase);
      listen(word, phrase, true);
      words.push([word, phrase]);
    }
    if (!data.pieces.length) make(caption, "span", "grove-none", "(The caption is empty.)");
  }
  const parts = make(root, "div", "grove-parts"), left = make(parts, "div"), right = make(parts, "div");
  const screen = make(left, "div", "grove-screen"), video = make(screen, "video"), boxes = make(screen, "div", "grove-boxes");
  screen.style.aspectRatio = record.width + " / " + record.height;
  // Neither a tall clip nor a small one may fill the page.
  parts.style.setProperty("--width", Math.max(Math.round(460 * record.width / record.height), 220) + "px");
  Object.assign(video, { src: data.video, muted: true, loop: true, playsInline: true, preload: "auto" });
  video.setAttribute("aria-label", "the clip, with a box around every phrase of its caption that is present");
  const controls = make(left, "div", "grove-controls"), play = make(controls, "button", "grove-play");
  play.type = "button";
  const bar = make(controls, "input"), clock = make(controls, "span", "grove-time");
  Object.assign(bar, { type: "range", min: 0, max: total - 1, step: 1, value: 0 });
  bar.setAttribute("aria-label", "frame of the clip");

  const rows = make(right, "div", "grove-rows"), lanes = [];
  phrases.forEach((text, phrase) => {
    const row = dress(make(rows, "div", "grove-row"), phrase), name = make(row, "div", "grove-name");
    make(name, "b", "", text).dir = "auto";
    const share = make(name, "span"), lane = make(row, "div", "grove-lane");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 " + total + " 1");
    svg.setAttribute("preserveAspectRatio", "none");
    lane.appendChild(svg);
    const limit = make(lane, "div", "grove-limit"), head = make(lane, "div", "grove-head");
    listen(row, phrase, false);
    lane.addEventListener("click", event => {
      const place = lane.getBoundingClientRect();
      seek(first + Math.floor((event.clientX - place.left) / place.width * total));
    });
    lanes.push({ row, share, svg, limit, head });
  });
  if (phrases.length) {
    const axis = make(right, "div", "grove-axis");
    make(axis, "span", "", data.start.toFixed(1) + " s");
    make(axis, "span", "", (data.start + total / data.rate).toFixed(1) + " s");
  } else {
    make(right, "p", "grove-none", "The caption has no phrase with boxes.");
  }

  // As in the annotated video: between two sampled frames that both have it a box is interpolated, elsewhere the nearest decides.
  function marks(frame) {
    let before = -1;
    while (before + 1 < samples.length && samples[before + 1] <= frame) before += 1;
    const low = Math.max(before, 0), high = Math.min(low + 1, samples.length - 1);
    const nearest = samples[high] - frame < Math.abs(frame - samples[low]) ? high : low, found = [];
    record.tracks.forEach((track, index) => {
      const phrase = data.track_phrases[index], here = presence[index];
      if (before >= 0 && high > low && here[low] && here[high]) {
        const share = (frame - samples[low]) / (samples[high] - samples[low]), mix = (a, b) => (1 - share) * a + share * b;
        const box = track.boxes[low].map((value, side) => mix(value, track.boxes[high][side]));
        found.push({ phrase, box, score: mix(track.objectness[low], track.objectness[high]) });
      } else if (here[nearest]) {
        found.push({ phrase, box: track.boxes[nearest], score: track.objectness[nearest] });
      }
    });
    return found;
  }
  function frameNow() {
    return first + Math.min(Math.floor(video.currentTime * data.rate + 0.05), total - 1);
  }
  function draw(frame) {
    shown = frame;
    boxes.replaceChildren();
    const wide = boxes.clientWidth, tall = boxes.clientHeight, tags = [], found = marks(frame);
    const area = mark => (mark.box[2] - mark.box[0]) * (mark.box[3] - mark.box[1]);
    const inside = (value, most) => Math.min(Math.max(value, 0), most);
    found.sort((a, b) => area(b) - area(a));
    for (const mark of found) {
      const x1 = inside(mark.box[0] / record.width, 1) * wide, x2 = inside(mark.box[2] / record.width, 1) * wide;
      const y1 = inside(mark.box[1] / record.height, 1) * tall, y2 = inside(mark.box[3] / record.height, 1) * tall;
      if (x1 >= x2 || y1 >= y2) continue;
      const box = dress(make(boxes, "div", "grove-box"), mark.phrase);
      Object.assign(box.style, { left: x1 + "px", top: y1 + "px", width: x2 - x1 + "px", height: y2 - y1 + "px" });
      box.dataset.phrase = mark.phrase;
      const tag = dress(make(null, "div", "grove-tag", phrases[mark.phrase] + " " + mark.score.toFixed(2)), mark.phrase);
      tag.dataset.phrase = mark.phrase;
      tags.push([tag, x1, y1, x2, y2]);
    }
    const taken = [];
    for (const [tag, x1, y1, x2, y2] of tags) {
      boxes.appendChild(tag);
      const w = tag.offsetWidth, h = tag.offsetHeight, left = inside(x1, wide - w), right = inside(x2 - w, wide - w);
      const places = [[left, y1 - h], [right, y1 - h], [left, y2], [left, y1 + 3], [right, y2 - h - 3], [right, y1 + 3]];
      const free = ([x, y]) => y >= 0 && y + h <= tall
        && !taken.some(([a, b, c, d]) => x < a + c && a < x + w && y < b + d && b < y + h);
      const [x, y] = places.find(free) || [left, inside(y1 - h, tall - h)];
      taken.push([x, y, w, h]);
      Object.assign(tag.style, { left: x + "px", top: y + "px" });
    }
    const present = new Set(found.map(mark => mark.phrase));
    for (const [word, phrase] of words) word.classList.toggle("absent", !present.has(phrase));
    for (const { head } of lanes) head.style.left = (frame - first + 0.5) / total * 100 + "%";
    bar.value = frame - first;
    clock.textContent = (data.start + seconds(frame)).toFixed(1) + " / " + (data.start + total / data.rate).toFixed(1) + " s";
    light();
  }
  function light() {
    boxes.classList.toggle("some", active !== null);
    for (const element of boxes.children) {
      const on = Number(element.dataset.phrase) === active;
      element.classList.toggle("on", on);
      element.classList.toggle("dim", active !== null && !on);
    }
    for (const [word, phrase] of words) word.classList.toggle("on", phrase === active);
    lanes.forEach(({ row }, phrase) => row.classList.toggle("on", phrase === active));
  }
  function highlight(phrase) {
    active = phrase;
    light();
  }
  function seek(frame) {
    frame = Math.min(Math.max(frame, first), first + total - 1);
    video.currentTime = (frame - first + 0.5) / data.rate;
    draw(frame);
  }
  function seekTo(phrase) {
    const at = samples.findIndex((_, n) => presence.some((here, i) => data.track_phrases[i] === phrase && here[n]));
    if (at >= 0) seek(samples[at]);
  }
  function drawLanes(threshold) {
    // A sampled frame stands for the source frames that it is nearest to, on a tie the earlier one does.
    const edges = samples.map((sample, n) => n ? Math.floor((samples[n - 1] + sample) / 2) + 1 - first : 0).concat(total);
    lanes.forEach(({ share, svg, limit }, phrase) => {
      const tracks = record.tracks.map((_, index) => index).filter(index => data.track_phrases[index] === phrase);
      let visible = 0;
      svg.replaceChildren();
      samples.forEach((_, n) => {
        const here = tracks.some(index => presence[index][n]);
        const height = Math.max(...tracks.map(index => record.tracks[index].objectness[n]));
        const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        const size = { x: edges[n], y: 1 - height, width: edges[n + 1] - edges[n], height };
        for (const [name, value] of Object.entries(size)) rect.setAttribute(name, value);
        rect.setAttribute("class", here ? "present" : "absent");
        rect.setAttribute("shape-rendering", "crispEdges");
        svg.appendChild(rect);
        visible += here;
      });
      share.textContent = visible ? "in " + visible + " of " + samples.length + " frames" : "never present";
      limit.style.top = (1 - threshold) * 100 + "%";
    });
  }
  function setThreshold(threshold) {
    moved = true;
    presence = record.tracks.map((track, i) => track.objectness.map((score, n) => known[i][n] && score > threshold));
    drawLanes(threshold);
    draw(shown);
  }
  // The record as `GroundedCaption.with_threshold` would write it.
  function currentRecord() {
    if (!moved) return record;
    const tracks = record.tracks.map((track, index) => ({ ...track, presence: presence[index] }));
    const frames = samples.map((_, n) => tracks.filter(track => track.presence[n]));
    return {
      ...record,
      bboxes: frames.map((present, n) => present.map(track => track.boxes[n])),
      labels: frames.map(present => present.map(track => track.phrase)),
      tracks,
    };
  }

  const icons = { play: "M3 1.5v13l11-6.5z", pause: "M3 1.5h3.5v13H3zM9.500 1.5H13v13H9.500z" };
  function showState() {
    play.innerHTML = '<svg viewBox="0 0 16 16" aria-hidden="true"><path d="' + icons[video.paused ? "play" : "pause"] + '"/></svg>';
    play.setAttribute("aria-label", video.paused ? "play" : "pause");
  }
  const toggle = () => video.paused ? video.play() : video.pause();
  play.addEventListener("click", toggle);
  video.addEventListener("click", toggle);
  for (const name of ["play", "pause"]) video.addEventListener(name, showState);
  bar.addEventListener("input", () => { video.pause(); seek(first + Number(bar.value)); });
  video.addEventListener("seeked", () => draw(frameNow()));
  function follow() {
    if (!screen.isConnected) { video.pause(); return; }  // another view has taken its place
    if (!video.paused && frameNow() !== shown) draw(frameNow());
    requestAnimationFrame(follow);
  }
  new ResizeObserver(() => draw(shown)).observe(screen);
  drawLanes(data.threshold);
  draw(first);
  showState();
  follow();
  return { setThreshold, currentRecord, highlight, seek, video, aside: right };
}
"""

PAGE_CSS = """
:root { color-scheme: light dark; --grove-text: #1b1f24; --grove-muted: #596273; --grove-line: #d9dde4; --grove-card: #fff;
  --grove-accent: #3757d6; --page: #f4f5f8; }
@media (prefers-color-scheme: dark) {
  :root { --grove-text: #eceef2; --grove-muted: #a3abb8; --grove-line: #3a404b; --grove-card: #1b1f26; --grove-accent: #8ea3ff;
    --page: #121418; }
}
body { margin: 0; background: var(--page); color: var(--grove-text); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 40px; }
header { margin-bottom: 14px; color: var(--grove-muted); overflow-wrap: anywhere; }
header h1 { margin: 0; font-size: 15px; font-weight: 600; color: var(--grove-text); display: inline; }
.sheet { padding: 24px; border: 1px solid var(--grove-line); border-radius: 14px; background: var(--grove-card); }
.sheet .grove-caption { margin-bottom: 20px; }
.tools { margin-top: 22px; padding-top: 20px; border-top: 1px solid var(--grove-line); }
.tools label { display: flex; align-items: center; gap: 12px; }
.tools label span { flex: none; font-weight: 600; }
.tools input { flex: 1; min-width: 0; margin: 0; accent-color: var(--grove-accent); }
.tools output { flex: none; width: 36px; text-align: right; font-variant-numeric: tabular-nums; }
.tools button { font: inherit; font-weight: 600; padding: 8px 16px; border: 1px solid var(--grove-line); border-radius: 8px;
  background: transparent; color: inherit; cursor: pointer; }
.tools button:hover { border-color: var(--grove-accent); }
.tools p { margin: 8px 0 16px; color: var(--grove-muted); font-size: 13px; }
@media (max-width: 560px) {
  main { padding: 14px 10px 28px; }
  .sheet { padding: 16px; }
  .sheet .grove-caption { font-size: 19px; }
  .tools button { width: 100%; }
}
"""

PAGE_JS = """
const data = JSON.parse(document.getElementById("data").textContent);
const bytes = Uint8Array.from(atob(document.getElementById("clip").textContent.trim()), letter => letter.charCodeAt(0));
data.video = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
const view = groveView(document.getElementById("view"), data);
view.aside.append(document.getElementById("tools"));
const slider = document.getElementById("threshold"), value = document.getElementById("value");
const show = () => { value.textContent = Number(slider.value).toFixed(2); };
slider.value = data.threshold;
if (!data.record.phrases.length) document.querySelectorAll("#tools > :not(button)").forEach(element => element.remove());
show();
slider.addEventListener("input", () => { show(); view.setThreshold(Number(slider.value)); });
document.getElementById("json").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(view.currentRecord()) + "\\n"], { type: "application/json" }));
  link.download = data.file_name;
  link.click();
  URL.revokeObjectURL(link.href);
});
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) view.video.play().catch(() => {});
"""

# The policy forbids the page to load anything, from anywhere.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
media-src blob:; img-src data:">
<link rel="icon" href="data:,">
<title>@title@</title>
<style>@css@</style>
</head>
<body>
<main>
<header><h1>@name@</h1> &middot; @facts@</header>
<div class="sheet">
<div id="view"></div>
<div id="tools" class="tools">
<label><span>Threshold</span><input id="threshold" type="range" min="0" max="1" step="0.01"><output id="value"></output></label>
<p>Bars show the objectness of a phrase in every sampled frame. It is present where that is above the threshold, the dashed
line.</p>
<button id="json" type="button">Download JSON</button>
</div>
</div>
</main>
<script type="application/json" id="data">@data@</script>
<script type="text/plain" id="clip">@clip@</script>
<script>@script@</script>
</body>
</html>
"""

__all__ = ["PAGE", "PAGE_CSS", "PAGE_JS", "VIEW_CSS", "VIEW_JS"]
