/** The state of the page in the query of the URL, so that any mount prefix works and any view can be shared. */
import { computed, signal } from "@preact/signals";

export type PageName = "jobs" | "job" | "failures" | "overview" | "types" | "schedules" | "usage" | "workers" | "documents";
const PAGES: readonly PageName[] = ["jobs", "job", "failures", "overview", "types", "schedules", "usage", "workers", "documents"];

export const TABS = ["all", "pending", "running", "completed", "failed", "cancelled", "stalled", "waiting"] as const;
export type Tab = (typeof TABS)[number];

export interface Place {
  page: PageName;
  /** The filter, in the grammar of the server. */
  q: string;
  tab: Tab;
  job: string | null;
  /** The open tab of a job. */
  part: string | null;
  type: string | null;
  window: string;
  /** What usage is grouped by: `type` or `label:NAME`. */
  by: string | null;
  /** The query of the search in documents, and the URI, metadata and owner to which it is restricted. */
  ask: string | null;
  under: string | null;
  where: string | null;
  owner: string | null;
}

function read(search: string): Place {
  const query = new URLSearchParams(search);
  const page = query.get("page") as PageName | null;
  const tab = query.get("tab") as Tab | null;
  return {
    page: page !== null && PAGES.includes(page) ? page : "jobs",
    q: query.get("q") ?? "",
    tab: tab !== null && TABS.includes(tab) ? tab : "all",
    job: query.get("job"),
    part: query.get("part"),
    type: query.get("type"),
    window: query.get("window") ?? "1h",
    by: query.get("by"),
    ask: query.get("ask"),
    under: query.get("under"),
    where: query.get("where"),
    owner: query.get("owner"),
  };
}

export const place = signal<Place>(read(location.search));
export const page = computed(() => place.value.page);

/** The address of a view, relative to the current one; parameters that are not given stay as they are. */
export function href(change: Partial<Place>): string {
  const next = { ...place.value, ...change };
  const query = new URLSearchParams();
  if (next.page !== "jobs") query.set("page", next.page);
  if (next.q !== "") query.set("q", next.q);
  if (next.tab !== "all") query.set("tab", next.tab);
  if (next.job !== null) query.set("job", next.job);
  if (next.part !== null) query.set("part", next.part);
  if (next.type !== null) query.set("type", next.type);
  if (next.window !== "1h") query.set("window", next.window);
  if (next.page === "usage" && next.by !== null) query.set("by", next.by);
  for (const name of ["ask", "under", "where", "owner"] as const) {
    const value = next[name];
    if (next.page === "documents" && value !== null) query.set(name, value);
  }
  const share = new URLSearchParams(location.search).get("share");
  if (share !== null) query.set("share", share);
  const text = query.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  return text === "" ? location.pathname : `?${text}`;
}

/** A page without an open job. */
export const pageAt = (name: PageName, change: Partial<Place> = {}): Partial<Place> => ({
  page: name,
  job: null,
  part: null,
  type: null,
  ...change,
});

export function go(change: Partial<Place>, { replace = false } = {}): void {
  const target = href(change);
  const next = { ...place.value, ...change };
  if (target === href({})) return;
  if (replace) history.replaceState(null, "", target);
  else history.pushState(null, "", target);
  place.value = next;
}

window.addEventListener("popstate", () => {
  place.value = read(location.search);
});

/** The filter sent to the server: the text of the field and the status of the tab. */
export const filter = computed(() => {
  const { q, tab } = place.value;
  const term = tab === "all" ? "" : tab === "stalled" || tab === "waiting" ? `is:${tab}` : `status:${tab}`;
  return [q.trim(), term].filter((text) => text !== "").join(" ");
});
