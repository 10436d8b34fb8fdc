import { describe, expect, it } from "vitest";
import { matcher } from "../src/jobs/matching";
import type { Row } from "../src/wire/types";

const row = {
  job_id: "0199f3a2-7c1e", job_type: "ingestion", status: "running", message: "Adding Embeddings", activity: "", title: "report.pdf",
  labels: { owner: "ana" }, worker: "gpu-1:42", stalled: null, stopping: false,
} as unknown as Row;

describe("the plain words of the filter", () => {
  it.each([
    ["", true], ["status:running", true], ["status:failed,running", true], ["status:failed", false], ["type:ingestion", true],
    ["not.type:ingestion", false], ["label.owner:ana", true], ["not.label.owner:ana", false], ["worker:gpu", true],
    ["is:active", true], ["not.is:active", false], ["is:stalled", false], ["report", true], ["REPORT.pdf", true], ["embeddings", true],
    ['"adding emb"', true], ["0199f3a2", true], ["nothing", false], ["status:running status:failed", true], ["id:0199", true],
  ])("%s is %s", (filter, fits) => {
    expect(matcher(filter)(row)).toBe(fits);
  });
  it.each(["error:timeout", "created:1d", "duration:5m..", "failure:ValueError@x.py:1"])("%s is the server's to tell", (filter) => {
    expect(matcher(filter)(row)).toBeUndefined();
    expect(matcher(`status:failed ${filter}`)(row)).toBe(false);
  });
});
