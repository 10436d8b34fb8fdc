import { describe, expect, it } from "vitest";
import { conditions, folderOf, marked } from "../src/pages/documents";

describe("the words of a query in a passage", () => {
  it.each([
    ["Run dpkg-divert now", "dpkg-divert", ["Run ", "dpkg", "-", "divert", " now"]],
    ["The engine, an Engine.", "ENGINE", ["The ", "engine", ", an ", "Engine", "."]],
    ["engines are not it", "engine", ["engines are not it"]],
    ["Bücher", "bücher.*(", ["", "Bücher", ""]],
    ["nothing", "? - a", ["nothing"]],
  ])("%s / %s", (text, query, parts) => expect(marked(text, query)).toEqual(parts));
});

it.each([
  ["", []],
  ["team=engines", ["team=engines"]],
  [" team=engines, year=1843,", ["team=engines", "year=1843,"]],
  ["title=Tables, notes,year=1", ["title=Tables, notes", "year=1"]],
  ["team", ["team"]],
])("reads the conditions of %s", (text, parts) => expect(conditions(text)).toEqual(parts));

it("knows the folder of a URI or key", () => {
  expect(folderOf("file:///papers/a/b.txt")).toBe("file:///papers/a");
  expect(folderOf("library/b.txt")).toBe("library");
  expect(folderOf("b.txt")).toBe(null);
});
