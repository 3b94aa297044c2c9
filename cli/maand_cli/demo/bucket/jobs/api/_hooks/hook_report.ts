// Reports the rollout, in TypeScript under Bun.
import { allocationIp, getKvValue, jobName, putJobVariable, rolloutOrder } from "./maand.ts";

const migrations = await getKvValue(`vars/job/${jobName()}`, "migrations");
(await putJobVariable("reported_by", `bun on ${allocationIp()}`)).raiseForStatus();
console.log(`rolled out over ${rolloutOrder().join(", ")} after ${migrations} migrations`);
