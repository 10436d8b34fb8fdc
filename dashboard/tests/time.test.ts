import { usualText } from "../src/job/durations";
import { describe, expect, it } from "vitest";
import { about, ago, elapsed, duration, timeLeftRange, percent, preciseDuration, remaining, startsIn, timeLeft, unknownLeft } from "../src/text/time";

const NOW = Date.parse("2026-11-25T12:00:00Z");
const at = (seconds: number): string => new Date(NOW + seconds * 1000).toISOString();

describe("durations", () => {
  it("floor, and never show 60 s", () => {
    expect(duration(59_999)).toBe("59\u00a0s");
    expect(duration(60_000)).toBe("1\u00a0min 0\u00a0s");
    expect(duration(119_999)).toBe("1\u00a0min 59\u00a0s");
    expect(duration(3_599_999)).toBe("59\u00a0min 59\u00a0s");
    expect(duration(3_600_000)).toBe("1\u00a0h 0\u00a0min");
    expect(duration(90_000_000)).toBe("1\u00a0d 1\u00a0h");
    expect(duration(-5)).toBe("0\u00a0s");
  });
  it("are short below ten seconds", () => {
    expect(preciseDuration(0.0129)).toBe("12\u00a0ms");
    expect(preciseDuration(2.19)).toBe("2.1\u00a0s");
    expect(preciseDuration(null)).toBe("–");
  });
  it("end when the job has ended", () => {
    expect(elapsed(at(-90), null, NOW)).toBe("1\u00a0min 30\u00a0s");
    expect(elapsed(at(-90), at(-30), NOW)).toBe("1\u00a0min 0\u00a0s");
    expect(elapsed(at(-1), at(-0.093), NOW)).toBe("907\u00a0ms");
    expect(elapsed(at(0), at(-1), NOW)).toBe("0\u00a0ms");
    expect(elapsed(null, null, NOW)).toBe("");
  });
  it("say how long ago", () => {
    expect(ago(at(0), NOW)).toBe("now");
    expect(ago(at(-61), NOW)).toBe("1\u00a0min ago");
    expect(ago(at(5), NOW)).toBe("now");
  });
});

describe("what is left", () => {
  it("is the middle of the range", () => {
    expect(timeLeft({ earliest: at(40), latest: at(54) }, NOW)).toBe("47\u00a0s");
    expect(timeLeftRange({ earliest: at(40), latest: at(70) }, NOW)).toBe("40\u00a0s to 1\u00a0min 10\u00a0s");
  });
  it("is nothing when nothing is known, or long overdue", () => {
    expect(timeLeft(null, NOW)).toBeNull();
    expect(timeLeft({ earliest: at(-200), latest: at(-100) }, NOW)).toBeNull();
    expect(timeLeft({ earliest: at(-20), latest: at(-1) }, NOW)).toBe("a moment");
  });
  it("is never about a moment", () => {
    expect(about("a moment")).toBe("a moment");
    expect(about("47\u00a0s")).toBe("about 47\u00a0s");
  });
});

it("says of an unknown time left when the job last changed", () => {
  expect(unknownLeft(at(-5), NOW)).toBe("time left unknown");
  expect(unknownLeft(at(-260), NOW)).toBe("time left unknown, last change 4\u00a0min ago");
  expect(unknownLeft(null, NOW)).toBe("time left unknown");
});

describe("the time left of a running job", () => {
  const job = { status: "running", stalled: null, eta: { earliest: at(40), latest: at(54) }, updated_at: at(0) } as const;

  it("is that of its last update, which a killed worker does not renew", () => {
    expect(remaining(job, NOW)).toEqual({ left: "47\u00a0s", asOf: "", text: "about 47\u00a0s left", range: "40\u00a0s to 54\u00a0s" });
    expect(remaining(job, NOW + 9_000)?.text).toBe("about 47\u00a0s left");
    expect(remaining(job, NOW + 12_000)?.text).toBe("about 47\u00a0s left as of 12\u00a0s ago");
    expect(remaining({ ...job, updated_at: at(12) }, NOW + 12_000)?.text).toBe("about 35\u00a0s left");
  });
  it("is unknown when the whole range is over without an update, or the job is stalled or not running", () => {
    expect(remaining(job, NOW + 53_000)?.text).toBe("about 47\u00a0s left as of 53\u00a0s ago");
    expect(remaining(job, NOW + 55_000)).toBeNull();
    expect(remaining({ ...job, updated_at: at(55) }, NOW + 55_000)?.text).toBe("a moment left");
    expect(remaining({ ...job, updated_at: at(155) }, NOW + 155_000)).toBeNull();
    expect(remaining({ ...job, stalled: "No progress" }, NOW)).toBeNull();
    expect(remaining({ ...job, status: "pending" }, NOW)).toBeNull();
    expect(remaining({ ...job, eta: null }, NOW)).toBeNull();
  });
});

it("says when a pending job is expected to start", () => {
  expect(startsIn(null, NOW)).toBeNull();
  expect(startsIn({ earliest: at(60), latest: at(120) }, NOW)).toBe("in about 1\u00a0min 30\u00a0s");
  expect(startsIn({ earliest: at(0), latest: at(0) }, NOW)).toBe("any moment");
  expect(startsIn({ earliest: at(-200), latest: at(-100) }, NOW)).toBe("any moment");
});

it("calls nothing 100 % that is not", () => {
  expect(percent(0.9999)).toBe(99);
  expect(percent(0.29)).toBe(29);
  expect(percent(1)).toBe(100);
});

describe("the usual time of a type", () => {
  it("says of how many jobs it is, and a 95th percentile of many only", () => {
    expect(usualText("wait", { p50: 0.961, p95: 0.961, count: 1 })).toBe("Typical wait 961\u00a0ms (of 1 job)");
    expect(usualText("run", { p50: 61, p95: 118, count: 40 })).toBe("Typical run 1\u00a0min 1\u00a0s (p95 1\u00a0min 58\u00a0s, of 40 jobs)");
  });
});
