// Run a queue peer of Node by the commands of benchmarks/queue_peer.py: `run(connect, work)`.
// `connect(url)` returns a queue with `submit()` and `submitMany(count)`; `work(url, tick)` starts a worker whose no-op job calls `tick`.
const fs = require("node:fs");

const [command, url, count = "0", seconds = "3600"] = process.argv.slice(2);
const EVERY = Number(process.env.BENCH_EVERY ?? "1");
const BULK = 500, ROUND = 100, IDLE = 15;

function ticker() {
  const fifo = fs.openSync(process.env.BENCH_TICKS, "r+");
  let n = 0;
  return () => {
    n += 1;
    if (n === 1 || n % EVERY === 0) fs.writeSync(fifo, `${n} ${process.hrtime.bigint()}\n`);
    return 1;
  };
}

async function submit(queue, bulk) {
  const most = Number(count), begin = performance.now();
  let done = 0;
  while (done < most && (done % ROUND || !done || performance.now() - begin < seconds * 1000)) {
    const size = bulk ? Math.min(BULK, most - done) : 1;
    await (bulk ? queue.submitMany(size) : queue.submit());
    done += size;
  }
  return { jobs: done, seconds: (performance.now() - begin) / 1000 };
}

async function pickup(queue) {
  const fifo = fs.openSync(process.env.BENCH_TICKS, "r+"), buffer = Buffer.alloc(256), latencies = [];
  for (let i = 0; i < Number(count) + 3; i++) {
    const begin = process.hrtime.bigint();
    await queue.submit();
    const line = buffer.toString("latin1", 0, fs.readSync(fifo, buffer));
    latencies.push(Number(BigInt(line.trim().split(" ")[1]) - begin) / 1e9);
    await new Promise((resolve) => setTimeout(resolve, IDLE));
  }
  return { latencies: latencies.slice(3) };
}

exports.run = async (connect, work) => {
  if (command === "work") return work(url, ticker());
  const queue = await connect(url);
  const done = command === "prepare" ? {} : command === "pickup" ? await pickup(queue) : await submit(queue, command === "bulk");
  console.log(JSON.stringify(done));
  process.exit(0);
};
