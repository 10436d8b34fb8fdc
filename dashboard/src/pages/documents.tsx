/** Search in the ingested documents: passages with their origin, the words of the query marked. */
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Link } from "../parts/link";
import { go, pageAt, place } from "../shell/address";
import { bound, hasDocuments, mayWrite } from "../shell/session";
import { get, Problem } from "../wire/api";

interface Hit {
  score: number;
  chunk_id: string;
  uri: string;
  title: string;
  heading: string;
  page: number | null;
  text: string;
}

const MODES = { hybrid: "Meaning and words", meaning: "Meaning", words: "Words" } as const;
const FORMATS = ["text", "markdown", "csv", "html", "pdf", "docx", "epub", "odt", "xlsx", "pptx", "json", "ipynb", "eml"];
const HITS = 10;
const NO_SEARCH = "This server does not search documents; milepost serve does.";
const WORD = /[\p{L}\p{N}]+/gu;

/** The parts of a text, every second of which is a word of the query. */
export function marked(text: string, query: string): string[] {
  const words = [...new Set(query.match(WORD) ?? [])].filter((word) => word.length > 1).sort((a, b) => b.length - a.length);
  if (words.length === 0) return [text];
  return text.split(new RegExp(`(?<![\\p{L}\\p{N}])(${words.join("|")})(?![\\p{L}\\p{N}])`, "giu"));
}

/** The folder of a URI or key, or null if it has none. */
export const folderOf = (uri: string): string | null => /^(.*[^/])\/[^/]+$/.exec(uri)?.[1] ?? null;

/** The conditions `name=value` of a text with commas between them; a value may contain commas. */
export const conditions = (text: string): string[] =>
  text
    .split(/,(?=[^,=]+=)/)
    .map((part) => part.trim())
    .filter((part) => part !== "");

const plainName = (uri: string): string => {
  try {
    return decodeURI(uri).replace(/^file:\/\//, "");
  } catch {
    return uri; // it is a key, in which a percent sign means itself
  }
};

export function DocumentsPage() {
  const { ask, under, where, owner } = place.value;
  const mode = useSignal("hybrid");
  const format = useSignal("");
  const single = useSignal(false);
  const found = useSignal<{ hits: Hit[]; of: string } | null>(null);
  const problem = useSignal<Problem | null>(null);
  const searching = useSignal(false);
  useEffect(() => {
    found.value = problem.value = null;
    if (ask === null) return;
    const abort = new AbortController();
    searching.value = true;
    const parameters = {
      q: ask,
      k: HITS,
      mode: mode.value,
      under,
      format: format.value,
      where: conditions(where ?? ""),
      owner,
      per_document: single.value,
    };
    get<{ hits: Hit[] }>("documents/search", parameters, abort.signal)
      .then(({ hits }) => (found.value = { hits, of: ask }))
      .catch((error: unknown) => {
        if (error instanceof Problem) problem.value = error;
        else if (!abort.signal.aborted) throw error;
      })
      .finally(() => {
        if (!abort.signal.aborted) searching.value = false;
      });
    return () => abort.abort();
  }, [ask, under, where, owner, mode.value, format.value, single.value]);
  if (!hasDocuments.value) {
    return (
      <main class="main">
        <div class="sheet">
          <h1>Documents</h1>
          <p class="muted">{NO_SEARCH}</p>
        </div>
      </main>
    );
  }
  return (
    <main class="main">
      <div class="sheet">
        <h1>Documents</h1>
        <form
          class="question"
          onSubmit={(event) => {
            event.preventDefault();
            const form = new FormData(event.currentTarget);
            const text = (name: string) => String(form.get(name) ?? "").trim() || null;
            go(pageAt("documents", { ask: text("ask"), under, where: text("where"), owner: text("owner") }));
          }}
        >
          <input class="field" type="search" name="ask" aria-label="Question or words" placeholder="Question or words" maxLength={2000} defaultValue={ask ?? ""} key={ask} />
          <button type="submit" class="button">
            Search
          </button>
          <label>
            Rank by{" "}
            <select class="field" value={mode.value} onChange={(event) => (mode.value = event.currentTarget.value)}>
              {Object.entries(MODES).map(([name, title]) => (
                <option key={name} value={name}>
                  {title}
                </option>
              ))}
            </select>
          </label>
          <label>
            Format{" "}
            <select class="field" value={format.value} onChange={(event) => (format.value = event.currentTarget.value)}>
              <option value="">All</option>
              {FORMATS.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <label>
            <input type="checkbox" checked={single.value} onChange={(event) => (single.value = event.currentTarget.checked)} /> One per
            document
          </label>
          <label>
            Metadata{" "}
            <input class="field" name="where" placeholder="team=engines" maxLength={2000} defaultValue={where ?? ""} key={where} />
          </label>
          {!bound.value && (
            <label>
              Owner <input class="field" name="owner" maxLength={1000} defaultValue={owner ?? ""} key={owner} />
            </label>
          )}
        </form>
        {under !== null && (
          <p class="apart">
            Only in <code>{plainName(under)}</code>{" "}
            <Link class="button" to={pageAt("documents", { under: null })}>
              Search everywhere
            </Link>
          </p>
        )}
        <div aria-live="polite">
          {ask === null && <p class="muted">Finds passages in the documents that jobs of the type ingestion have indexed.</p>}
          {searching.value && <p class="muted">Searching…</p>}
          {problem.value !== null && <p role="alert">{wrong(problem.value)}</p>}
          {found.value?.hits.length === 0 && (
            <p class="muted">
              Nothing found.{mayWrite.value && " To add documents, run: milepost run ingestion PATH"}
            </p>
          )}
        </div>
        <ol class="groups">
          {found.value?.hits.map((hit) => (
            <Passage key={hit.chunk_id} hit={hit} query={found.value?.of ?? ""} />
          ))}
        </ol>
      </div>
    </main>
  );
}

function wrong(problem: Problem): string {
  if (problem.status === 403) return "Your key doesn't allow this.";
  return problem.status === 404 ? NO_SEARCH : problem.detail;
}

function Passage({ hit, query }: { hit: Hit; query: string }) {
  const folder = folderOf(hit.uri);
  const heading = hit.heading.startsWith(hit.title) ? hit.heading.slice(hit.title.length).replace(/^ > /, "") : hit.heading;
  return (
    <li class="card group passage">
      <h2>
        {hit.title || plainName(hit.uri)}
        {heading !== "" && <span class="muted"> › {heading}</span>}
      </h2>
      <span class="muted small right" title="Score of this passage, at most 1">
        {hit.score.toFixed(2)}
      </span>
      <p>{marked(hit.text, query).map((part, at) => (at % 2 === 1 ? <mark key={at}>{part}</mark> : part))}</p>
      <span class="muted small">
        {plainName(hit.uri)}
        {hit.page !== null && `, page ${hit.page}`}
      </span>
      <div class="actions">
        <Link class="button" to={pageAt("documents", { under: hit.uri })}>
          Only this document
        </Link>
        {folder !== null && (
          <Link class="button" to={pageAt("documents", { under: folder })}>
            Only this folder
          </Link>
        )}
      </div>
    </li>
  );
}
