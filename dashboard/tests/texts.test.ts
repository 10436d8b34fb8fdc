import { describe, expect, it } from "vitest";
import { readTraceback, runs } from "../src/job/traceback";
import { fieldsOf, valueOf } from "../src/pages/schema";
import { completions, unfinished } from "../src/shell/filter";
import { countOf } from "../src/job/timeline";
import { shortId } from "../src/jobs/row";
import { quoted } from "../src/text/commands";
import { plural } from "../src/text/plural";
import { attemptText } from "../src/text/progress";
import { isOlder, titleOf } from "../src/wire/row";
import { Cutter } from "../src/wire/sse";

describe("server-sent events", () => {
  it("are cut wherever the network cut them", () => {
    const wire = ": hello\n\nid: 7\nevent: jobs\ndata: {\"a\":\ndata: 1}\n\nevent: end\ndata: {}\n\n";
    for (let size = 1; size < 12; size++) {
      const cutter = new Cutter();
      const found = [];
      for (let at = 0; at < wire.length; at += size) found.push(...cutter.feed(wire.slice(at, at + size)));
      expect(found).toEqual([
        { id: "7", event: "jobs", data: '{"a":\n1}' },
        { id: "7", event: "end", data: "{}" },
      ]);
    }
  });
});

describe("attempts", () => {
  it("have a limit only where milepost sets it", () => {
    expect(attemptText(2, 3)).toBe("2 of 3");
    expect(attemptText(2, 1000)).toBe("2");
  });
});

describe("ids", () => {
  it("that were generated in the same millisecond differ", () => {
    expect(shortId("01a21a50-8a87-7e2a-8d6e-548278a7d98e")).toBe("01a21a50-8a87-7e2a");
    expect(shortId("01a21a50-8a87-7c14-93aa-0d61f1c30a4b")).toBe("01a21a50-8a87-7c14");
  });
  it("of the user are whole, or have both of their ends", () => {
    expect(shortId("nightly-2026-11-26")).toBe("nightly-2026-11-26");
    expect(shortId("import-of-all-customers-0001")).toBe("import-of-al…ers-0001");
    expect(shortId("import-of-all-customers-0002")).not.toBe(shortId("import-of-all-customers-0001"));
  });
});

describe("counts of a stage", () => {
  it("have the unit in its plural", () => {
    expect(countOf({ done: 3, total: 20, unit: "child" })).toBe("3 of 20 children");
    expect(countOf({ done: 20, total: 20, unit: "batch" })).toBe("20 batches");
    expect(countOf({ done: 1, total: 1, unit: "chunk" })).toBe("1 chunk");
  });
  it("are shown without a total, too, as of a stage beyond its total", () => {
    expect(countOf({ done: 8, total: null, unit: "page" })).toBe("8 pages");
    expect(countOf({ done: 1, total: null, unit: "page" })).toBe("1 page");
    expect(countOf({ done: 0, total: null, unit: "page" })).toBe("");
  });
  it("are those of the command line", () => {
    for (const [noun, expected] of [["query", "queries"], ["day", "days"], ["person", "people"], ["box", "boxes"], ["constructor", "constructors"], ["API call", "API calls"]] as const)
      expect(plural(noun, 2)).toBe(expected);
    for (const noun of ["Seite", "kB", "%", "\u30da\u30fc\u30b8", "p\u00e1gina", "\u0441\u0442\u0440\u043e\u043a\u0430"]) expect(plural(noun, 3)).toBe(noun);
  });
});

describe("tracebacks", () => {
  const text = `Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/x/run.py", line 2, in run
    go()
  File "/srv/app/embed.py", line 41, in embed
    data = json.loads(reply)
           ^^^^^^^^^^^^^^^^^
ValueError: bad

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/app/main.py", line 3, in main
KeyError: 'a'
`;
  it("show the user's frames and fold those of libraries", () => {
    const { parts, error } = readTraceback(text);
    expect(error).toBe("KeyError: 'a'");
    const frames = parts.filter((part) => typeof part !== "string");
    expect(frames.map((one) => one.length)).toEqual([2, 1]);
    expect(runs(frames[0] ?? []).map(([library, some]) => [library, some.length])).toEqual([[true, 1], [false, 1]]);
    expect(frames[0]?.[1]?.code[0]).toBe("data = json.loads(reply)");
  });
});

describe("forms from schemas", () => {
  const schema = {
    type: "object",
    properties: {
      path: { type: "string" },
      size: { type: "integer", default: 512 },
      model: { enum: ["small", "large"], default: "small" },
      names: { anyOf: [{ type: "array", items: { type: "string" } }, { type: "null" }], default: null },
      key: { type: "string" },
      tables: { type: "boolean", default: false },
    },
    required: ["path", "key"],
  };
  const fields = fieldsOf(schema, ["key"]);
  const field = (name: string) => fields.find((one) => one.name === name) as (typeof fields)[number];
  it("look behind a reference that may be null", () => {
    const optional = {
      $defs: { Colour: { enum: ["red", "blue"], type: "string" } },
      properties: { colour: { anyOf: [{ $ref: "#/$defs/Colour" }, { type: "null" }], default: null } },
    };
    const [colour] = fieldsOf(optional, []);
    expect([colour?.kind, colour?.choices]).toEqual(["choice", ["red", "blue"]]);
  });
  it("choose the field for each kind", () => {
    expect(fields.map((one) => one.kind)).toEqual(["text", "whole", "choice", "json", "secret", "boolean"]);
    expect(field("size").initial).toBe("512");
    expect(field("path").required).toBe(true);
  });
  it("give the values that the schema wants", () => {
    expect(valueOf(field("size"), "12")).toBe(12);
    expect(() => valueOf(field("size"), "1.5")).toThrow("size: 1.5 is not a whole number");
    expect(() => valueOf(field("size"), "9007199254740993")).toThrow("size: 9007199254740993 is too large for this form");
    expect(valueOf(field("names"), '["a"]')).toEqual(["a"]);
    expect(() => valueOf(field("names"), "a")).toThrow("names: this is not JSON");
    expect(valueOf(field("model"), "large")).toBe("large");
    expect(valueOf(field("size"), undefined)).toBeUndefined();
  });
});

describe("small texts", () => {
  it("are safe in a shell", () => {
    expect(quoted("abc-1")).toBe("abc-1");
    expect(quoted("it's; rm")).toBe("'it'\\''s; rm'");
  });
  it("name a job", () => {
    expect(titleOf({ metadata: { file_path: "C:\\data\\report.pdf" }, params: null })).toBe("report.pdf");
    expect(titleOf({ metadata: {}, params: { secret: "***", q: "words" } })).toBe("words");
    expect(titleOf({ metadata: {}, params: { page: 6 }, child_key: "page-6" })).toBe("page-6");
    expect(titleOf({ metadata: null, params: null })).toBeNull();
  });
  it("are cut between characters", () => {
    expect(titleOf({ metadata: { title: `a${"🔥".repeat(300)}` }, params: null })).toBe(`a${"🔥".repeat(199)}`);
    expect(titleOf({ metadata: { title: "x".repeat(300) }, params: null })).toBe("x".repeat(200));
  });
  it("wait for the rest of a term", () => {
    const half = (word: string) => unfinished(word, completions(word, word.length, []).choices);
    expect(["status:", "status:fai", "not.is:sta", "label.owner", "created:1", 'type:"a b'].map(half)).not.toContain(false);
    expect(["status:failed", "report", "label.owner:ana", "created:1d", "type:in"].map(half)).not.toContain(true);
  });
  it("complete what was begun", () => {
    expect(completions("status:fa", 9, []).choices.map((one) => one.text)).toEqual(["status:failed"]);
    expect(completions("a not.ty", 8, []).choices.map((one) => one.text)).toContain("not.type:");
    expect(completions("type:", 5, ["ingestion"]).choices[0]?.text).toBe("type:ingestion");
  });
});

describe("what is shown of a job", () => {
  const known = { created_at: "2026-11-25T10:00:00.500000+00:00", version: 9 };
  it("is older by its version, and a new job with the same id is newer whatever its version", () => {
    expect(isOlder({ ...known, version: 8 }, known)).toBe(true);
    expect(isOlder({ ...known, version: 9 }, known)).toBe(false);
    expect(isOlder({ created_at: "2026-11-25T10:00:01+00:00", version: 1 }, known)).toBe(false);
    expect(isOlder(known, { created_at: "2026-11-25T10:00:01+00:00", version: 1 })).toBe(true);
  });
});
