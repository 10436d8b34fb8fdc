/**
 * Whether a changed job belongs to a list: true, false, or undefined if only the server can tell. The server defines the
 * grammar; this evaluates its simple terms, so that most changes need no request.
 */
import { isEnded, type Row } from "../wire/types";

const TERM = /(not\.)?(?:([A-Za-z][\w.-]*):)?((?:"(?:[^"\\]|\\.)*"|[^\s"])*)/y;

type Test = (row: Row) => boolean | undefined;

export function matcher(filter: string): Test {
  const tests: Test[] = [];
  const statuses: string[] = [];
  const types: string[] = [];
  const ids: string[] = [];
  let at = 0;
  while (at < filter.length) {
    if (/\s/.test(filter[at] ?? "")) {
      at += 1;
      continue;
    }
    TERM.lastIndex = at;
    const found = TERM.exec(filter);
    if (found === null || found[0] === "") return () => undefined;
    at += found[0].length;
    const negative = found[1] !== undefined;
    const value = unquoted(found[3] ?? "");
    if (!negative && found[2] === "status") statuses.push(...value.split(","));
    else if (!negative && found[2] === "type") types.push(...value.split(","));
    else if (!negative && found[2] === "id") ids.push(...value.split(","));
    else {
      const test = term(found[2], value, found[0]);
      tests.push((row) => {
        const fits = test(row);
        return fits === undefined ? undefined : fits !== negative;
      });
    }
  }
  if (statuses.length > 0) tests.push((row) => statuses.includes(row.status));
  if (types.length > 0) tests.push((row) => types.includes(row.job_type));
  if (ids.length > 0) tests.push((row) => ids.some((id) => row.job_id.startsWith(id)));
  return (row) => {
    let sure: boolean | undefined = true;
    for (const test of tests) {
      const fits = test(row);
      if (fits === false) return false;
      if (fits === undefined) sure = undefined;
    }
    return sure;
  };
}

function term(key: string | undefined, value: string, whole: string): Test {
  if (key === undefined) {
    const words = unquoted(whole).normalize("NFKC").toLowerCase();
    return (row) => {
      const text = `${row.job_type}\n${row.title ?? ""}\n${row.message}`.normalize("NFKC").toLowerCase();
      return row.job_id.startsWith(words) || text.includes(words);
    };
  }
  if (key.startsWith("label.")) return (row) => row.labels[key.slice(6)] === value;
  const parts = value.split(",");
  switch (key) {
    case "status":
      return (row) => parts.includes(row.status);
    case "type":
      return (row) => parts.includes(row.job_type);
    case "id":
      return (row) => parts.some((id) => row.job_id.startsWith(id));
    case "worker":
      return (row) => row.worker?.startsWith(value) === true;
    case "is":
      if (value === "stalled") return (row) => Boolean(row.stalled);
      if (value === "stopping") return (row) => row.stopping;
      if (value === "active") return (row) => !isEnded(row.status);
      return value === "ended" ? (row) => isEnded(row.status) : () => undefined;
    default:
      return () => undefined;
  }
}

const unquoted = (text: string): string =>
  text.replace(/"((?:[^"\\]|\\.)*)"/g, (_, inner: string) => inner.replace(/\\(.)/g, "$1"));
