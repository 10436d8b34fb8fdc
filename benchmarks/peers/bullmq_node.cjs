// BullMQ on Node, with 100 jobs at a time.
const { Queue, Worker } = require("bullmq");
const { run } = require("../queue_peer.cjs");

const connection = (url) => ({ host: "127.0.0.1", port: Number(new URL(url).port), maxRetriesPerRequest: null });

async function connect(url) {
  const queue = new Queue("bench", { connection: connection(url) });
  await queue.waitUntilReady();
  return {
    submit: () => queue.add("noop", {}),
    submitMany: (count) => queue.addBulk(Array.from({ length: count }, () => ({ name: "noop", data: {} }))),
  };
}

run(connect, (url, tick) => {
  new Worker("bench", async () => tick(), { connection: connection(url), concurrency: 100 });
});
