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

it.runIf(supported)("every double is a number, with its leading zeros and sign", () => {
  const read = parseExactly("[-0.003126481734058223, 0.0012345678901234567, -12.345678901234567, -1.2345678901234567e-9]") as unknown[];
  expect(read.map((value) => typeof value)).toEqual(["number", "number", "number", "number"]);
});

it("direction marks are made visible", () => {
  expect(plain("gnp\u202Eexe")).toBe("gnp\uFFFDexe");
});
