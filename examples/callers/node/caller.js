// A service that lists workers, runs a command on them, follows it to its end, and counts how often it did.
//
//   node caller.js COMMAND      see ../README.md for the variables it reads

import { randomUUID } from "node:crypto";
import { call, connect, follow } from "./maand.js";

const bucket_id = process.env.BUCKET_ID;
const { runs, kv, workers } = connect({
  address: process.env.MAAND_CATALOG_ADDRESS,
  ca: process.env.MAAND_TLS_CA,
  tokenFile: process.env.MAAND_API_TOKEN_FILE,
});

async function runEverywhere(command) {
  const spec = { run_command: { command } };
  const { run } = await call(runs, "CreateRun", { bucket_id, spec, requested_by: "caller.js", request_id: randomUUID() });
  for await (const event of follow(runs, run)) {
    for (const line of event.output?.lines ?? []) console.log(event.worker, "|", line);
  }
  const ended = await call(runs, "GetRun", { bucket_id, run_id: run.run_id });
  if (ended.run.state !== "RUN_STATE_SUCCEEDED") throw new Error(`${run.run_id}: ${ended.run.message}`);
}

async function count(namespace, key) {
  for (;;) {
    const entry = await call(kv, "Get", { bucket_id, namespace, key }).then(
      (found) => found.entry,
      (error) => (error.status === "NOT_FOUND" ? null : Promise.reject(error)),
    );
    const value = entry ? Number(entry.value) + 1 : 1;
    const precondition = entry ? { if_version: entry.version } : { if_absent: true };
    try {
      await call(kv, "Put", { bucket_id, namespace, key, value: String(value), precondition, request_id: randomUUID() });
      return value;
    } catch (error) {
      if (error.status !== "ABORTED") throw error; // somebody else counted meanwhile: read again, decide again
    }
  }
}

try {
  for (const worker of (await call(workers, "ListWorkers", { bucket_id })).workers) console.log("worker", worker.name);
  await runEverywhere(process.argv[2]);
  console.log("counted", await count("vars/callers", "caller_runs"));
} catch (error) {
  console.error(`error (${error.code || error.status}): ${error.message}\n  help: ${error.help ?? ""}`);
  process.exitCode = 1;
} finally {
  for (const client of [runs, kv, workers]) client.close();
}
