// BullMQ on Node, with 100 jobs at a time. It takes the commands of benchmarks/queue_peer.py, and ticks as benchmarks/ticks.py does.
const fs = require("node:fs");
const { Queue, Worker } = require("bullmq");

const [command, url, count = "0", seconds = "3600"] = process.argv.slice(2);
const connection = { host: "127.0.0.1", port: Number(new URL(url).port), maxRetriesPerRequest: null };
const EVERY = Number(process.env.BENCH_EVERY ?? "1");
const BULK = 500, ROUND = 100, IDLE = 15;

function work() {
  const fifo = fs.openSync(process.env.BENCH_TICKS, "r+");
  let n = 0;
  new Worker("bench", async () => {
    n += 1;
    if (n === 1 || n % EVERY === 0) fs.writeSync(fifo, `${n} ${process.hrtime.bigint()}\n`);
    return 1;
  }, { connection, concurrency: 100 });
}

async function submit(queue, bulk) {
  const most = Number(count), begin = performance.now();
  let done = 0;
  while (done < most && (done % ROUND || !done || performance.now() - begin < seconds * 1000)) {
    if (bulk) {
      const size = Math.min(BULK, most - done);
      await queue.addBulk(Array.from({ length: size }, () => ({ name: "noop", data: {} })));
      done += size;
    } else {
      await queue.add("noop", {});
      done += 1;
    }
  }
  return { jobs: done, seconds: (performance.now() - begin) / 1000 };
}

async function pickup(queue) {
  const fifo = fs.openSync(process.env.BENCH_TICKS, "r+"), buffer = Buffer.alloc(256), latencies = [];
  for (let i = 0; i < Number(count) + 3; i++) {
    const begin = process.hrtime.bigint();
    await queue.add("noop", {});
    const line = buffer.toString("latin1", 0, fs.readSync(fifo, buffer));
    latencies.push(Number(BigInt(line.trim().split(" ")[1]) - begin) / 1e9);
    await new Promise((resolve) => setTimeout(resolve, IDLE));
  }
  return { latencies: latencies.slice(3) };
}

async function main() {
  if (command === "work") return work();
  const queue = new Queue("bench", { connection });
  await queue.waitUntilReady();
  console.log(JSON.stringify(command === "pickup" ? await pickup(queue) : await submit(queue, command === "bulk")));
  process.exit(0);
}

main();
