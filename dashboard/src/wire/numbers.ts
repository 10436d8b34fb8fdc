/** JSON in which numbers that JavaScript cannot represent keep their text. */

interface RawJson {
  rawJSON: (text: string) => object;
  isRawJSON: (value: unknown) => value is { rawJSON: string };
}

// Available since 2025; older browsers show such numbers rounded.
const json = JSON as unknown as Partial<RawJson>;

/** Parses JSON. A number that would change is kept as its text, and `JSON.stringify` writes it unchanged. */
export function parseExactly(text: string): unknown {
  const { rawJSON } = json;
  if (rawJSON === undefined) return JSON.parse(text);
  const keep = (_: string, value: unknown, context?: { source?: string }): unknown =>
    typeof value === "number" && context?.source !== undefined && isChanged(value, context.source) ? rawJSON(context.source) : value;
  return JSON.parse(text, keep);
}

function isChanged(value: number, source: string): boolean {
  if (/^-?\d+$/.test(source)) return !Number.isSafeInteger(value);
  return !Number.isFinite(value) || source.replace(/e.*$/i, "").replace(/^-?(0\.0*)?|\./g, "").length > 17;
}

/** The text of a number that was kept, or null for anything else. */
export const exactNumber = (value: unknown): string | null =>
  json.isRawJSON?.(value) === true ? (value as { rawJSON: string }).rawJSON : null;
