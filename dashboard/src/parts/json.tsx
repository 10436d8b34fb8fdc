/** A JSON viewer: coloured, long parts folded, with a copy button. */
import type { ComponentChildren } from "preact";
import { plain } from "../text/plain";
import { exactNumber } from "../wire/numbers";
import { copy } from "./copyable";

const OPEN_ITEMS = 60;
const PIECE = 200;

export function JsonView({ value, label }: { value: unknown; label: string }) {
  return (
    <div class="holder">
      <button
        type="button"
        class="button"
        aria-label={`Copy ${label}`}
        onClick={() => void copy(JSON.stringify(value, null, 2), `${label} copied`)}
      >
        Copy
      </button>
      <pre class="well json" tabIndex={0} aria-label={label}>
        <Value value={value} open />
      </pre>
    </div>
  );
}

function Value({ value, open }: { value: unknown; open: boolean }) {
  if (typeof value === "string") return <bdi class="text">{JSON.stringify(plain(value))}</bdi>;
  const exact = exactNumber(value);
  if (exact !== null) return <span>{exact}</span>;
  if (Array.isArray(value)) return <Many marks="[]" open={open && value.length <= OPEN_ITEMS} entries={value.map((one) => [null, one])} />;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value);
    return <Many marks="{}" open={open && entries.length <= OPEN_ITEMS} entries={entries} />;
  }
  return <span class={typeof value === "number" ? "" : "other"}>{String(value)}</span>;
}

function Many({ marks, open, entries }: { marks: string; open: boolean; entries: [string | null, unknown][] }) {
  if (entries.length === 0) return <>{marks}</>;
  const pieces: ComponentChildren[] = entries.slice(0, PIECE).map(([key, one], at) => (
    <div class="inside" key={at}>
      {key !== null && (
        <>
          <span class="key">{JSON.stringify(plain(key))}</span>:{" "}
        </>
      )}
      <Value value={one} open={entries.length <= OPEN_ITEMS} />
      {at < entries.length - 1 ? "," : ""}
    </div>
  ));
  if (entries.length > PIECE) pieces.push(<div class="inside muted">… {entries.length - PIECE} more; copy shows all</div>);
  return (
    <details open={open}>
      <summary>
        {marks[0]}
        <span class="folded">
          {" "}
          {entries.length} … {marks[1]}
        </span>
      </summary>
      {pieces}
      {marks[1]}
    </details>
  );
}
