// The little that a caller needs on top of @grpc/grpc-js: a channel with TLS and a token, calls as promises, streams that resume,
// errors with their typed detail. The contracts are read from the .proto files as they are.

import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PROTOS = process.env.MAAND_PROTOS ?? fileURLToPath(new URL("../../../protos", import.meta.url));

const FILES = ["run", "kv", "worker"].map((area) => `maand_contracts/catalog/v1/${area}.proto`);
const definition = loadSync([...FILES, "maand_contracts/common/v1/error.proto", "status.proto"], {
  includeDirs: [PROTOS, HERE],
  keepCase: true, // fields are named as in the .proto files
  longs: String, // 64-bit numbers do not fit into JavaScript's
  enums: String,
  defaults: true,
  oneofs: true, // event.event says which kind an event is
});
const { maand } = grpc.loadPackageDefinition(definition);

export function connect({ address, ca, tokenFile }) {
  const token = grpc.credentials.createFromMetadataGenerator((_, answer) => {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${readFileSync(tokenFile, "utf8").trim()}`);
    answer(null, metadata);
  });
  const credentials = grpc.credentials.combineChannelCredentials(grpc.credentials.createSsl(readFileSync(ca)), token);
  const options = { "grpc.service_config": JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }) };
  const target = address.includes(",") ? `ipv4:${address}` : address; // several are numbers; one may be a name with many addresses
  const { RunService, KvService, WorkerService } = maand.catalog.v1;
  const services = { runs: RunService, kv: KvService, workers: WorkerService };
  return Object.fromEntries(Object.entries(services).map(([name, Service]) => [name, new Service(target, credentials, options)]));
}

// Call once, as a promise. The error of a refused call has `status` (gRPC's word), `code`, `help` and `facts` (maand's).
export function call(client, method, request, seconds = 30) {
  return new Promise((resolve, reject) => {
    client[method](request, { deadline: Date.now() + 1000 * seconds }, (error, response) =>
      error ? reject(readable(error)) : resolve(response),
    );
  });
}

// Follow a run to its end. A lost catalog only means attaching anew, at another one, after the last sequence seen.
export async function* follow(runs, { bucket_id, run_id }, patienceSeconds = 30) {
  let after_sequence = "0";
  let lostSince = null;
  for (;;) {
    try {
      for await (const { events } of runs.WatchRun({ bucket_id, run_id, after_sequence, follow: true })) {
        lostSince = null;
        for (const event of events) {
          after_sequence = event.sequence;
          yield event;
        }
      }
      const { run } = await call(runs, "GetRun", { bucket_id, run_id });
      if (!["RUN_STATE_PENDING", "RUN_STATE_RUNNING"].includes(run.state)) return;
    } catch (failure) {
      const error = readable(failure);
      lostSince ??= Date.now();
      if (!isLost(error) || Date.now() - lostSince > 1000 * patienceSeconds) throw error;
    }
    await pause(200);
  }
}

// What maand refuses carries a typed detail, and so a code; a connection that broke carries none, whatever gRPC calls it.
function isLost(error) {
  return error.status === "UNAVAILABLE" || (error.code === "" && ["CANCELLED", "UNKNOWN", "INTERNAL"].includes(error.status));
}

function readable(error) {
  if (typeof error.code !== "number") return error; // read before, or not gRPC's
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const details = packed ? definition["google.rpc.Status"].deserialize(packed).details : [];
  const ours = details.find(({ type_url }) => type_url.endsWith("/maand.common.v1.ErrorDetail"));
  const { code = "", help = "", facts = {}, problems = [] } = ours
    ? definition["maand.common.v1.ErrorDetail"].deserialize(ours.value)
    : {};
  return Object.assign(new Error(error.details), { status: grpc.status[error.code], code, help, facts, problems });
}
