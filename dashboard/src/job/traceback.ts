/** A Python traceback in frames: the user's own are shown, those of libraries are folded. */

export interface Frame {
  file: string;
  line: number;
  name: string;
  code: string[];
  library: boolean;
}

export interface Trace {
  /** The text around the frames: headings, causes, and the exception at the end. */
  parts: (Frame[] | string)[];
  error: string;
}

const FRAME = /^ {2}File "(.+)", line (\d+)(?:, in (.+))?$/;
const LIBRARY = /site-packages|dist-packages|[\\/]lib[\\/]python\d|[\\/]milepost[\\/](?:worker|tracking|manager|stores)[\\/]|^<frozen/;

export function readTraceback(text: string): Trace {
  const parts: (Frame[] | string)[] = [];
  let frames: Frame[] | null = null;
  let error = "";
  for (const line of text.replace(/\n+$/, "").split("\n")) {
    const found = FRAME.exec(line);
    if (found !== null) {
      if (frames === null) parts.push((frames = []));
      const file = found[1] ?? "";
      frames.push({ file, line: Number(found[2]), name: found[3] ?? "", code: [], library: LIBRARY.test(file) });
    } else if (frames !== null && line.startsWith("    ")) {
      frames.at(-1)?.code.push(line.slice(4));
    } else {
      frames = null;
      if (line.trim() !== "" && !line.startsWith("Traceback (most recent call last)")) {
        parts.push(line);
        error = line;
      }
    }
  }
  return { parts, error };
}

/** Groups adjacent frames of one kind: [library, frames], in order. */
export function runs(frames: readonly Frame[]): [boolean, Frame[]][] {
  const found: [boolean, Frame[]][] = [];
  for (const frame of frames) {
    const last = found.at(-1);
    if (last !== undefined && last[0] === frame.library) last[1].push(frame);
    else found.push([frame.library, [frame]]);
  }
  return found;
}

/** The end of a path that distinguishes files. */
export const shortPath = (file: string): string => file.split(/[\\/]/).slice(-2).join("/");
