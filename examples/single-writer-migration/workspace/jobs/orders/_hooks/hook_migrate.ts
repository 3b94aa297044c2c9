// Migrate the schema: every allocation may try, one at a time does, and each migration is applied once.
//
// The semaphore lets one invocation in; whoever comes after finds the work done. `ifVersion` guards against the one case that a
// lock cannot: a process that lost its lock without noticing. The fencing token is handed to the migration for the same reason.
import { allocationIp, getStoreValue, jobName, notice, putJobVariable, rolloutOrder, runSsh, withSemaphore } from "./maand";

const target = 3; // the schema this version of the job needs
const database = rolloutOrder()[0]; // the worker that keeps the data

await withSemaphore("migrate", async (slot) => {
  for (;;) {
    const stored = await getStoreValue(`vars/job/${jobName()}`, "schema_version");
    if (stored.statusCode !== 404) stored.raiseForStatus();
    const { value, version } = stored.ok ? stored.json() : { value: "0", version: undefined };
    const schema = Number(value);
    if (schema >= target) break;

    console.log(`${allocationIp()} migrates ${schema} -> ${schema + 1} (fence ${slot.fencingToken})`);
    await runSsh(database, `mkdir -p /opt/worker && echo ${schema + 1} >> /opt/worker/orders.migrations`); // stands for DDL
    const precondition = version === undefined ? { ifAbsent: true } : { ifVersion: version };
    (await putJobVariable("schema_version", String(schema + 1), precondition)).raiseForStatus();
    notice(`${allocationIp()} migrated the schema to ${schema + 1}`);
  }
});
