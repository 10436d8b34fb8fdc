/** The plural of a noun that may be English, as the command line writes it (milepost.core.activity). */
const IRREGULAR: Record<string, string> = { child: "children", person: "people", index: "indexes" };

export function plural(noun: string, count: number): string {
  if (count === 1 || !/(^|[ _-])([a-z]+|[A-Z]+)$/.test(noun)) return noun;
  const irregular = Object.hasOwn(IRREGULAR, noun) ? IRREGULAR[noun] : undefined;
  if (irregular !== undefined) return irregular;
  if (/[^aeiou]y$/.test(noun)) return `${noun.slice(0, -1)}ies`;
  return noun + (/(s|x|z|ch|sh)$/.test(noun) ? "es" : "s");
}
