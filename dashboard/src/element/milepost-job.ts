/**
 * `<milepost-job src="/api/jobs/0199...">`: one job, live, in a page of your own. Attributes: `src` (the job's address),
 * `share` (a share token). It dispatches `job` events with the row of the job, and takes the colour scheme of its page.
 * Parts for `::part`: name, status, track, bar, activity, left.
 */
import { serverNow } from "../live/offset";
import { progressText, isProgressUnknown } from "../text/progress";
import { plain } from "../text/plain";
import { percent, preciseDuration, remaining } from "../text/time";
import type { Row } from "../wire/types";
import { listen } from "./shared";

const LOOK = `
:host { display: block; font: 14px/20px system-ui, sans-serif; font-variant-numeric: tabular-nums;
  color: light-dark(#14181d, #e8edf2); overflow-wrap: anywhere; }
:host([hidden]) { display: none; }
.line { display: flex; gap: 12px; align-items: baseline; justify-content: space-between; }
.muted { color: light-dark(#545e69, #9ba7b4); }
.track { height: 8px; border-radius: 4px; overflow: hidden; margin: 4px 0; background: light-dark(#eceef1, #20272f); }
.done { height: 100%; transform-origin: 0 0; transition: transform 0.25s linear; background: currentColor; }
.of-pending { color: light-dark(#4a5562, #b4bfcb); } .of-running { color: light-dark(#0a55c2, #7db4ff); }
.of-completed { color: light-dark(#0c6631, #5fd08a); } .of-failed { color: light-dark(#b3211a, #ff9a8f); }
.of-cancelled { color: light-dark(#6a3ea1, #c6a8f2); } .of-stalled { color: light-dark(#7d4800, #eebb62); }
@media (prefers-reduced-motion: reduce) { .done { transition: none; } }
`;

class MilepostJob extends HTMLElement {
  static readonly observedAttributes = ["src", "share"];
  #stop: (() => void) | null = null;
  #timer: ReturnType<typeof setInterval> | undefined;
  #job: Row | null = null;
  #place: { name: HTMLElement; far: HTMLElement; track: HTMLElement; done: HTMLElement; says: HTMLElement; left: HTMLElement };

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(LOOK);
    root.adoptedStyleSheets = [sheet];
    const part = (tag: string, name: string, into: Node, label = ""): HTMLElement => {
      const made = document.createElement(tag);
      made.className = name;
      if (label !== "") made.setAttribute("part", label);
      into.appendChild(made);
      return made;
    };
    const head = part("div", "line", root);
    const name = part("b", "", head, "name");
    const far = part("span", "", head, "status");
    const track = part("div", "track", root, "track");
    const done = part("div", "done", track, "bar");
    track.setAttribute("role", "progressbar");
    track.setAttribute("aria-label", "Progress");
    const foot = part("div", "line muted", root);
    this.#place = { name, far, track, done, says: part("span", "", foot, "activity"), left: part("span", "", foot, "left") };
  }

  connectedCallback(): void {
    this.#watch();
    this.#timer = setInterval(() => this.#draw(), 1000);
  }

  disconnectedCallback(): void {
    clearInterval(this.#timer);
    this.#stop?.();
    this.#stop = null;
  }

  attributeChangedCallback(): void {
    if (this.isConnected) this.#watch();
  }

  #watch(): void {
    this.#stop?.();
    this.#stop = null;
    this.#clear();
    const source = this.getAttribute("src");
    if (source === null) return;
    const url = new URL(source, document.baseURI);
    const found = /^(.*)\/jobs\/([^/]+)\/?$/.exec(url.pathname);
    if (found === null) return this.#say("src must be the address of a job: /api/jobs/ID");
    this.#stop = listen({
      api: new URL(found[1] ?? "", url).href,
      id: decodeURIComponent(found[2] ?? ""),
      share: this.getAttribute("share") ?? url.searchParams.get("share"),
      update: (row) => {
        this.#job = row;
        this.#draw();
        this.dispatchEvent(new CustomEvent("job", { detail: row }));
      },
      missing: () => {
        this.#clear();
        this.#say("Job not found. It may have been deleted or expired.");
      },
    });
  }

  #say(text: string): void {
    this.#place.track.hidden = true;
    this.#place.says.textContent = text;
  }

  /** Discards the previous job when `src` changes. */
  #clear(): void {
    const { name, far, done, says, left } = this.#place;
    this.#job = null;
    for (const one of [name, far, says, left]) one.textContent = "";
    done.style.transform = "scaleX(0)";
  }

  #draw(): void {
    const job = this.#job;
    if (job === null) return;
    const { name, far, track, done, says, left } = this.#place;
    const now = serverNow();
    const running = job.status === "running";
    const look = running && job.stalled ? "stalled" : job.status;
    const rest = remaining(job, now);
    const progress = Math.max(0, Math.min(1, (isProgressUnknown(job) ? job.stage_progress : job.progress) ?? 0));
    const text = running ? progressText(job) || "running" : look;
    track.hidden = false;
    name.textContent = plain(job.title === null ? job.job_type : `${job.job_type} ${job.title}`);
    far.textContent = text;
    far.className = `of-${look}`;
    track.setAttribute("aria-label", `Progress of ${job.job_type}`);
    track.setAttribute("aria-valuenow", String(percent(progress)));
    track.setAttribute("aria-valuetext", `${text}${rest === null ? "" : `, ${rest.text}`}`);
    done.className = `done of-${look}`;
    done.style.transform = `scaleX(${progress})`;
    says.textContent = plain(job.activity);
    left.title = rest?.range ?? "";
    left.textContent =
      rest?.text ??
      (job.completed_at && job.started_at ? `ran ${preciseDuration((Date.parse(job.completed_at) - Date.parse(job.started_at)) / 1000)}` : "");
  }
}

if (customElements.get("milepost-job") === undefined) customElements.define("milepost-job", MilepostJob);
