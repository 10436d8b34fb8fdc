// Graphile Worker on Node, with the local queue and the batches of its page on performance. It deletes finished jobs.
const { makeWorkerUtils, run: runWorker } = require("graphile-worker");
const { run } = require("../queue_peer.cjs");

async function connect(url) {
  const utils = await makeWorkerUtils({ connectionString: url });
  await utils.migrate();
  return {
    submit: () => utils.addJob("noop", {}),
    submitMany: (count) => utils.addJobs(Array.from({ length: count }, () => ({ identifier: "noop", payload: {} }))),
  };
}

run(connect, (url, tick) =>
  runWorker({
    preset: {
      worker: {
        connectionString: url, concurrentJobs: 100, maxPoolSize: 10, localQueue: { size: 500 },
        completeJobBatchDelay: 0, failJobBatchDelay: 0,
      },
    },
    taskList: { noop: () => { tick(); } },
  }));
