/**
 * `<milepost-job src="/api/jobs/0199...">`: one job, live, in a page of your own. It stands on `milepost-watch.js`, which
 * it takes from the same API. Attributes: `src` (the job's address), `share` (a share token). It says `job` events.
 */
import { duration, leftRange, percent, timeLeft } from "../text/time";
import type { JobRecord, Eta } from "../wire/types";

type Watched = Partial<JobRecord> & { job_id: string };
interface Watch {
  watchJob: (
    api: string,
    id: string,
    options: { onChange: (job: Watched) => void; onEnd: (job: Watched) => void; share?: string },
  ) => () => void;
}

const LOOK = `
:host { display: block; font: 14px/20px system-ui, sans-serif; font-variant-numeric: tabular-nums; color-scheme: light dark;
  color: light-dark(#14181d, #e8edf2); }
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
  #job: Watched | null = null;
  #place: { name: HTMLElement; far: HTMLElement; track: HTMLElement; done: HTMLElement; says: HTMLElement; left: HTMLElement };
  #turn = 0;
  /** How far this machine's clock is from the server's, where that is far. */
  #apart = 0;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(LOOK);
    root.adoptedStyleSheets = [sheet];
    const part = (tag: string, name: string, into: Node): HTMLElement => {
      const made = document.createElement(tag);
      made.className = name;
      into.appendChild(made);
      return made;
    };
    const head = part("div", "line", root);
    const name = part("b", "", head);
    const far = part("span", "", head);
    const track = part("div", "track", root);
    const done = part("div", "done", track);
    track.setAttribute("role", "progressbar");
    const foot = part("div", "line muted", root);
    this.#place = { name, far, track, done, says: part("span", "", foot), left: part("span", "", foot) };
  }

  connectedCallback(): void {
    void this.#watch();
    this.#timer = setInterval(() => this.#draw(), 1000);
  }

  disconnectedCallback(): void {
    clearInterval(this.#timer);
    this.#turn += 1;
    this.#stop?.();
    this.#stop = null;
  }

  attributeChangedCallback(): void {
    if (this.isConnected) void this.#watch();
  }

  async #watch(): Promise<void> {
    const mine = (this.#turn += 1);
    this.#stop?.();
    this.#stop = null;
    this.#clear();
    const source = this.getAttribute("src");
    if (source === null) return;
    const url = new URL(source, document.baseURI);
    const found = /^(.*)\/jobs\/([^/]+)\/?$/.exec(url.pathname);
    if (found === null) {
      this.#place.says.textContent = "src must be the address of a job: /api/jobs/ID";
      return;
    }
    const api = new URL(found[1] ?? "", url).href;
    const { watchJob } = (await import(/* @vite-ignore */ `${api}/milepost-watch.js`)) as Watch;
    if (mine !== this.#turn) return;
    // What the stream tells is a part of the record.
    const told = (job: Watched): void => {
      this.#job = { ...this.#job, ...job };
      this.#draw();
      this.dispatchEvent(new CustomEvent("job", { detail: this.#job }));
    };
    const share = this.getAttribute("share") ?? url.searchParams.get("share");
    this.#stop = watchJob(api, decodeURIComponent(found[2] ?? ""), {
      onChange: told,
      onEnd: told,
      ...(share === null ? {} : { share }),
    });
    if (share !== null) url.searchParams.set("share", share);
    const answer = await fetch(url, { headers: { Accept: "application/json" } });
    const apart = Date.parse(answer.headers.get("Date") ?? "") - Date.now();
    this.#apart = Math.abs(apart) > 5000 ? apart : 0;
    if (answer.ok && mine === this.#turn) {
      const record = (await answer.json()) as Watched;
      told((this.#job?.version ?? 0) <= (record.version ?? 0) ? record : { ...record, ...this.#job });
    }
  }

  /** Nothing of another job is left when `src` changes. */
  #clear(): void {
    const { name, far, done, says, left } = this.#place;
    this.#job = null;
    for (const one of [name, far, says, left]) one.textContent = "";
    done.style.transform = "scaleX(0)";
  }

  #draw(): void {
    const job = this.#job;
    if (job === null || job.status === undefined) return;
    const { name, far, track, done, says, left } = this.#place;
    const now = Date.now() + this.#apart;
    const running = job.status === "running";
    const look = running && job.stalled ? "stalled" : job.status;
    const eta = (job.eta ?? null) as Eta | null;
    const rest = running && !job.stalled ? timeLeft(eta, now) : null;
    const progress = Math.max(0, Math.min(1, job.progress ?? 0));
    name.textContent = job.job_type ?? "";
    far.textContent = running ? `${percent(progress)}%` : look;
    far.className = `of-${look}`;
    track.setAttribute("aria-label", job.job_type ?? "Progress");
    track.setAttribute("aria-valuenow", String(percent(progress)));
    track.setAttribute("aria-valuetext", `${percent(progress)}%${rest === null ? "" : `, about ${rest} left`}`);
    done.className = `done of-${look}`;
    done.style.transform = `scaleX(${progress})`;
    says.textContent = job.status === "failed" ? (job.error ?? job.message ?? "") : (job.message ?? "");
    left.title = leftRange(eta, now) ?? "";
    left.textContent =
      rest !== null
        ? `about ${rest} left`
        : job.completed_at != null && job.started_at != null
          ? `ran ${duration(Date.parse(job.completed_at) - Date.parse(job.started_at))}`
          : "";
  }
}

if (customElements.get("milepost-job") === undefined) customElements.define("milepost-job", MilepostJob);
