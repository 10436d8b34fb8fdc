import { describe, expect, it } from "vitest";
import { endedBy, endOf, failuresOf, lastedText, type Run } from "../src/job/attempts";
import type { Attempts, EventRecord } from "../src/wire/types";

const run = (attempt: number, ended_at: string | null): Run => ({ attempt, worker: "vm:1:2", started_at: null, ended_at, release: null });
const failures = (...all: { attempt: number; at: string }[]) => failuresOf({ attempts: all } as unknown as Attempts);

describe("the failure that ended a run", () => {
  it("is the nearest of those with its number, since a lost run does not count", () => {
    const [givenBack, lost, failed] = [run(1, "2026-11-28T05:00:10Z"), run(1, "2026-11-28T05:01:00Z"), run(1, "2026-11-28T05:02:00Z")];
    const [one, other] = failures({ attempt: 1, at: "2026-11-28T05:00:59Z" }, { attempt: 1, at: "2026-11-28T05:02:00Z" });
    expect(endedBy([givenBack, lost, failed], [one!, other!])).toEqual(new Map([[lost, one], [failed, other]]));
  });

  it("is none for a run that has not ended, or of another number", () => {
    expect(endedBy([run(2, null), run(1, "2026-11-28T05:00:10Z")], failures({ attempt: 2, at: "2026-11-28T05:00:10Z" })).size).toBe(0);
  });
});

describe("the time of a run", () => {
  it("of a lost one is not that for which it ran", () => {
    const at = Date.parse("2026-11-28T05:01:00Z");
    const [begun, ended] = ["2026-11-28T05:00:00Z", "2026-11-28T05:00:39Z"];
    expect(lastedText(begun, ended, { kind: "lost" }, at)).toBe("lost after 39\u00a0s");
    expect(lastedText(begun, ended, { kind: "crash_loop" }, at)).toBe("lost after 39\u00a0s");
    expect(lastedText(begun, ended, { kind: "error" }, at)).toBe("ran 39\u00a0s");
    expect(lastedText(begun, null, null, at)).toBe("ran 1\u00a0min 0\u00a0s");
  });
});

describe("what ended a run", () => {
  const lost = run(1, "2026-11-28T05:00:10.500000+00:00");
  const event = (kind: string, data: Record<string, unknown> = {}) => ({ kind, data, at: lost.ended_at, job_id: "a", version: 3 }) as EventRecord;

  it("is its failure, else its event", () => {
    const [failure] = failuresOf({ attempts: [{ kind: "lost" }] } as unknown as Attempts);
    expect(endOf(lost, failure, [event("retrying", { crashes: 1 })])).toBe("worker lost");
    expect(endOf(lost, failure, [event("retrying", { suspect: "1" }), event("running")])).toBe("worker lost, not counted as a crash");
    expect(endOf(lost, undefined, [event("completed")])).toBe("completed");
    expect(endOf(lost, undefined, [event("released")])).toBe("given back to the queue");
    expect(endOf(lost, undefined, [event("retrying")])).toBe("failed");
  });

  it("is unknown while it runs, and without its event", () => {
    expect(endOf(run(1, null), undefined, [event("retrying")])).toBe("");
    expect(endOf(lost, undefined, [{ ...event("retrying"), at: "2026-11-28T05:00:11Z" }])).toBe("");
  });
});
