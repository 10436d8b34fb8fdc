/** The server's clock, used by the page and by `<milepost-job>` if that of this machine is far off. */

const FAR = 5000;
let offset = 0;

export const serverNow = (): number => Date.now() + offset;

/** Reads the server's clock from a time that it has just sent; returns whether that changes the time much. */
export function noteServerTime(sent: string | null): boolean {
  const apart = (sent === null ? Number.NaN : Date.parse(sent)) - Date.now();
  if (Number.isNaN(apart)) return false;
  const before = offset;
  offset = Math.abs(apart) > FAR ? apart : 0;
  return Math.abs(offset - before) > FAR;
}
