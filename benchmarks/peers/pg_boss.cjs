// pg-boss on Node: 100 jobs a fetch, the next fetch at once while each is full, and LISTEN for jobs that come later.
const { PgBoss } = require("pg-boss");
const { run } = require("../queue_peer.cjs");

async function start(url) {
  const boss = new PgBoss({ connectionString: url, useListenNotify: true });
  boss.on("error", console.error);
  await boss.start();
  await boss.createQueue("bench", { notify: true });
  return boss;
}

async function connect(url) {
  const boss = await start(url);
  return {
    submit: () => boss.send("bench", {}),
    submitMany: (count) => boss.insert("bench", Array.from({ length: count }, () => ({ data: {} }))),
  };
}

run(connect, async (url, tick) => {
  const boss = await start(url);
  await boss.work("bench", { batchSize: 100, burstWhenBatchFull: true }, async (jobs) => jobs.map(tick));
});
