import { describe, expect, it } from "vitest";
import { exactNumber, parseExactly } from "../src/wire/numbers";
import { plain } from "../src/text/plain";

const supported = "rawJSON" in JSON;

describe("numbers beyond what JavaScript holds", () => {
  it.runIf(supported)("keep their digits, on screen and in a copy", () => {
    const text = '{"big":12345678901234567890,"small":12,"pi":3.14,"wide":0.12345678901234567891}';
    const read = parseExactly(text) as Record<string, unknown>;
    expect(exactNumber(read["big"])).toBe("12345678901234567890");
    expect([read["small"], read["pi"]]).toEqual([12, 3.14]);
    expect(exactNumber(read["small"])).toBeNull();
    expect(JSON.stringify(read)).toBe(text);
  });
});

it("direction marks are made visible", () => {
  expect(plain("gnp\u202Eexe")).toBe("gnp\uFFFDexe");
});
