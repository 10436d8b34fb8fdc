import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError, waitForJob, watchJob } from "../../clients/npm/src/index";

/** The streams and requests of a page, and what a server answers to them. */
class Stream extends EventTarget {
  static readonly CLOSED = 2;
  static opened: Stream[] = [];
  readyState = 1;
  onerror: (() => void) | null = null;

  constructor(readonly url: string) {
    super();
    Stream.opened.push(this);
  }

  close(): void {
    this.readyState = Stream.CLOSED;
  }

  snapshot(...jobs: object[]): void {
    if (this.readyState === Stream.CLOSED) return;
    const data = JSON.stringify({ jobs, at: "2026-11-25T12:00:00Z" });
    this.dispatchEvent(new MessageEvent("snapshot", { data }));
  }

  refuse(): void {
    this.readyState = Stream.CLOSED;
    this.onerror?.();
  }
}

let records: Record<string, { job_id: string; status: string }>;
let status: number;
let api: string;
let tests = 0;
const stops: (() => void)[] = [];

const last = (): Stream => Stream.opened.at(-1)!;
const opening = (): Promise<unknown> => vi.advanceTimersByTimeAsync(60);

function watch(id: string): { onChange: ReturnType<typeof vi.fn>; onMissing: ReturnType<typeof vi.fn> } {
  const listener = { onChange: vi.fn(), onMissing: vi.fn() };
  stops.push(watchJob(id, listener, { api }));
  return listener;
}

beforeEach(() => {
  vi.useFakeTimers();
  Stream.opened = [];
  status = 200;
  records = { a: { job_id: "a", status: "completed" }, b: { job_id: "b", status: "running" } };
  api = `https://jobs.example/${tests++}`;
  vi.stubGlobal("EventSource", Stream);
  vi.stubGlobal("fetch", (url: string) => {
    const record = records[url.split("/").at(-1) ?? ""];
    const answer = status === 200 && record === undefined ? 404 : status;
    return Promise.resolve(Response.json(record ?? { detail: "refused" }, { status: answer }));
  });
});

afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("waitForJob", () => {
  it("ignores the snapshot of a stream that was opened without its job", async () => {
    watch("a");
    await opening();
    const ended = vi.fn();
    void waitForJob("b", { api }).then(ended);
    last().snapshot(records["a"]!);
    await opening();
    expect(ended).not.toHaveBeenCalled();
    records["b"]!.status = "completed";
    last().snapshot(records["a"]!, records["b"]!);
    await opening();
    expect(ended).toHaveBeenCalledWith({ job_id: "b", status: "completed" });
  });

  it("resolves for a job whose stream is open already", async () => {
    watch("a");
    await opening();
    last().snapshot(records["a"]!);
    const ended = waitForJob("a", { api });
    await opening();
    last().snapshot(records["a"]!);
    expect((await ended).status).toBe("completed");
    expect(Stream.opened.length).toBe(2);
  });

  it("continues to wait when the record has not ended", async () => {
    const ended = vi.fn();
    void waitForJob("b", { api }).then(ended);
    await opening();
    last().snapshot({ ...records["b"], status: "failed" }); // a retry comes before the record is read
    await opening();
    expect(ended).not.toHaveBeenCalled();
    records["b"]!.status = "completed";
    last().snapshot(records["b"]!);
    await opening();
    expect(ended).toHaveBeenCalledWith({ job_id: "b", status: "completed" });
  });

  it("rejects for a job that does not exist", async () => {
    const ended = waitForJob("absent", { api }).catch((error: unknown) => error);
    await opening();
    last().snapshot();
    expect(await ended).toBeInstanceOf(ApiError);
  });
});

describe("a stream that is refused", () => {
  it.each([401, 403, 404])("tells of a job that may not be seen: %i", async (refused) => {
    const { onMissing } = watch("a");
    await opening();
    status = refused;
    last().refuse();
    await opening();
    expect(onMissing).toHaveBeenCalledOnce();
  });

  it.each([429, 500])("tells nothing while the server asks for patience: %i", async (refused) => {
    const { onMissing } = watch("a");
    await opening();
    status = refused;
    last().refuse();
    await opening();
    expect(onMissing).not.toHaveBeenCalled();
  });
});
