/**
 * What a TypeScript hook says to maand: one file, no dependencies, Bun 1.1 or newer, also Node 20 or newer.
 * maand puts it beside the hook.
 *
 *     import { getKvValue, isOneShot, putJobSecret } from "./maand";
 *
 *     if (isOneShot()) (await putJobSecret("admin_password", "…", { ifAbsent: true })).raiseForStatus();
 *     console.log(await getKvValue("maand/bucket", "bucket_id"));
 *
 * Context functions read the environment that maand gives the hook. Everything else asks the runtime API on this machine
 * (docs/hook-api.md) and resolves to a `Response`, or throws `MaandError` when the API cannot be reached. Names and behaviour
 * are those of maand.py, in camelCase. Only types are TypeScript's here, so that erasing them leaves JavaScript.
 */

import * as http from "node:http";
import { randomUUID } from "node:crypto";

/** A line on standard output that begins so becomes a notice of the run. */
export const NOTICE_PREFIX = "::maand-notice:: ";

const CALL_TIMEOUT = 60; // seconds for calls that only read or write
const WAIT_MARGIN = 60; // seconds added to a timeout that the service itself keeps
const IDLE_LIMIT = 30; // seconds; the gateway keeps idle connections longer, so a kept one is still open

/* --- errors and answers ------------------------------------------------------------------------------------------ */

/** What a call may carry besides its message. */
export type ErrorFacts = { statusCode?: number; code?: string; details?: Record<string, unknown> };

/**
 * The runtime API refused a call, or could not be reached (then `statusCode` is 0). The message says what to do.
 *
 *     try {
 *       (await putJobVariable("leader", allocationIp(), { ifAbsent: true })).raiseForStatus();
 *     } catch (error) {
 *       if (error instanceof MaandError) console.log(error.code, error.details.current_version);
 *     }
 */
export class MaandError extends Error {
  readonly statusCode: number;
  readonly code: string;
  readonly details: Record<string, unknown>;

  constructor(message: string, facts: ErrorFacts = {}) {
    super(message);
    this.name = "MaandError";
    this.statusCode = facts.statusCode ?? 0;
    this.code = facts.code ?? "";
    this.details = facts.details ?? {};
  }
}

/** A key is absent, and no default was given. */
export class KeyError extends MaandError {
  constructor(message: string) {
    super(message, { statusCode: 404, code: "not_found" });
    this.name = "KeyError";
  }
}

/** A command on a worker failed. `result` is what it printed and how it ended. */
export class SSHError extends MaandError {
  readonly result: SSHResult;

  constructor(result: SSHResult) {
    const how = result.timedOut ? "timed out" : `failed with exit code ${result.returncode}`;
    const output = (result.stderr.trim() || result.stdout.trim()).slice(-2000);
    super(`\`${result.command}\` on ${result.worker} ${how}${output ? `:\n${output}` : ""}`, { code: "ssh_failed" });
    this.name = "SSHError";
    this.result = result;
  }
}

/**
 * An answer of the runtime API.
 *
 *     const response = await getStoreValue("vars/job/api", "leader");
 *     if (response.ok) console.log(response.json().value);
 */
export class Response {
  readonly statusCode: number;
  readonly headers: Record<string, string>;
  readonly content: Uint8Array;

  constructor(statusCode: number, headers: Record<string, string>, content: Uint8Array) {
    this.statusCode = statusCode;
    this.headers = headers;
    this.content = content;
  }

  /** Whether the call succeeded. */
  get ok(): boolean {
    return this.statusCode >= 200 && this.statusCode < 300;
  }

  /** The body as text. */
  get text(): string {
    return new TextDecoder().decode(this.content);
  }

  /** The body read as JSON. */
  json(): any {
    return JSON.parse(this.text);
  }

  /** Throws `MaandError` with the API's message unless the call succeeded. */
  raiseForStatus(): void {
    if (this.ok) return;
    let error: { message: string; code: string; details: Record<string, unknown> };
    try {
      error = this.json().error;
      if (typeof error.message !== "string") throw new TypeError("no message");
    } catch {
      throw new MaandError(`the runtime API answered ${this.statusCode}`, { statusCode: this.statusCode });
    }
    throw new MaandError(error.message, { statusCode: this.statusCode, code: error.code, details: error.details });
  }
}

type SshAnswer = {
  exit_code: number;
  stdout: string;
  stderr: string;
  timed_out: boolean;
  truncated: boolean;
  duration_ms: number;
};

/**
 * How a command on a worker ended.
 *
 *     const result = await runSsh("10.0.0.1", "test -e /etc/api.conf", { check: false });
 *     console.log(result.ok, result.returncode);
 */
export class SSHResult {
  readonly worker: string;
  readonly command: string;
  readonly returncode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly timedOut: boolean;
  readonly truncated: boolean;
  readonly durationMs: number;

  constructor(worker: string, command: string, answer: SshAnswer) {
    this.worker = worker;
    this.command = command;
    this.returncode = answer.exit_code;
    this.stdout = answer.stdout;
    this.stderr = answer.stderr;
    this.timedOut = answer.timed_out;
    this.truncated = answer.truncated;
    this.durationMs = answer.duration_ms;
  }

  /** Whether the command exited with 0. */
  get ok(): boolean {
    return this.returncode === 0 && !this.timedOut;
  }

  /** Throws `SSHError` unless the command exited with 0. */
  raiseForStatus(): void {
    if (!this.ok) throw new SSHError(this);
  }
}

/* --- context: who and where this invocation is -------------------------------------------------------------------- */

function environment(name: string): string {
  const value = process.env[name];
  if (value === undefined) {
    throw new MaandError(`${name} is not set: maand sets it for hooks; on a laptop, use \`maand hooks test JOB HOOK\``);
  }
  return value;
}

function list(name: string): string[] {
  return (process.env[name] ?? "")
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
}

/** The id of this allocation, a UUID that stays the same across deploys. `allocationId()` */
export const allocationId = (): string => environment("ALLOCATION_ID");

/** The worker of this allocation, as in workers.json. `await runSsh(allocationIp(), "uptime")` */
export const allocationIp = (): string => environment("ALLOCATION_IP");

/** The index of this allocation among the job's, from 0. `const serverId = allocationIndex() + 1` */
export const allocationIndex = (): number => Number(environment("ALLOCATION_INDEX"));

/** The job this hook belongs to. `jobName() === "api"` */
export const jobName = (): string => environment("JOB");

/** The name of this hook. `hookName() === "hook_migrate"` */
export const hookName = (): string => environment("HOOK");

/** The event on which this hook runs. `if (hookEvent() === "pre_deploy") …` */
export const hookEvent = (): string => environment("EVENT");

/** The version that runs now; "0.0.0" before the first promotion. `const first = currentVersion() === "0.0.0"` */
export const currentVersion = (): string => environment("CURRENT_VERSION");

/** The version that is being deployed. `newVersion()` */
export const newVersion = (): string => environment("NEW_VERSION");

/** Whether this allocation is disabled. `if (isAllocationDisabled()) notice("leaving the cluster")` */
export const isAllocationDisabled = (): boolean => process.env.DISABLED === "1";

/** Whether this invocation does what must be done once: first allocation of the first batch. `if (!isOneShot()) process.exit(0)` */
export const isOneShot = (): boolean => batchIndex() === 0 && batchAllocations()[0] === allocationIp();

/** The index of this batch, from 0. `console.log(batchIndex() + 1, "of", batchCount())` */
export const batchIndex = (): number => Number(environment("BATCH_INDEX"));

/** How many batches there are. `const last = batchIndex() === batchCount() - 1` */
export const batchCount = (): number => Number(environment("BATCH_COUNT"));

/** The workers of this batch, in rollout order. `batchAllocations()[0]` */
export const batchAllocations = (): string[] => list("BATCH_ALLOCATIONS");

/** All workers of this rollout, first to last. `const leader = rolloutOrder().at(-1)` */
export const rolloutOrder = (): string[] => list("ROLLOUT_ORDER");

/** The workers to be started (`job_control` in deploy). `if (newAllocations().includes(allocationIp())) …` */
export const newAllocations = (): string[] => list("NEW_ALLOCATIONS");

/** The workers to be brought up to date (`job_control` in deploy). `if (updatedAllocations().includes(allocationIp())) …` */
export const updatedAllocations = (): string[] => list("UPDATED_ALLOCATIONS");

/* --- key-value store ---------------------------------------------------------------------------------------------- */

/** How a value is written. `ttl` is seconds (0 = it stays); a lost precondition is status 409. */
export type PutOptions = { ttl?: number; ifVersion?: number; ifAbsent?: boolean };

/** Read a value; secrets come decrypted. Status 404 when the key is absent. `(await getStoreValue(ns, key)).json().version` */
export function getStoreValue(namespace: string, key: string): Promise<Response> {
  return callApi("GET", "/kv", { namespace, key });
}

/** A value as text. An absent key gives `defaultValue`, or throws `KeyError` without one. `await getKvValue(ns, "leader", "")` */
export async function getKvValue<T = string>(namespace: string, key: string, ...defaultValue: [T?]): Promise<string | T> {
  const response = await getStoreValue(namespace, key);
  if (response.statusCode === 404) {
    if (defaultValue.length === 0) throw new KeyError(`${namespace} ${key}`);
    return defaultValue[0] as T;
  }
  response.raiseForStatus();
  return response.json().value;
}

/** Write a variable of this job. `await putJobVariable("leader", allocationIp(), { ifAbsent: true })` */
export function putJobVariable(key: string, value: string, options: PutOptions = {}): Promise<Response> {
  return put("/kv", `vars/job/${jobName()}`, key, value, options);
}

/** Write a secret of this job, stored encrypted and masked in all output. `await putJobSecret("token", token, { ifAbsent: true })` */
export function putJobSecret(key: string, value: string, options: PutOptions = {}): Promise<Response> {
  return put("/kv/secret", `secrets/job/${jobName()}`, key, value, options);
}

/** Delete a variable of this job. Status 404 when it is absent. `await deleteJobVariable("leader")` */
export function deleteJobVariable(key: string): Promise<Response> {
  return callApi("DELETE", "/kv", { namespace: `vars/job/${jobName()}`, key });
}

/** Delete a secret of this job. Status 404 when it is absent. `await deleteJobSecret("bootstrap_token")` */
export function deleteJobSecret(key: string): Promise<Response> {
  return callApi("DELETE", "/kv/secret", { namespace: `secrets/job/${jobName()}`, key });
}

/** List keys of a namespace, or of this job's variables and secrets. `(await listJobKeys()).json().namespaces` */
export function listJobKeys(namespace?: string): Promise<Response> {
  return callApi("GET", "/kv/keys", namespace === undefined ? {} : { namespace });
}

/** Set the order of the next rollout: a permutation of the job's active workers. `await putRolloutOrder([...followers, leader])` */
export function putRolloutOrder(order: string | Iterable<string>): Promise<Response> {
  const workers = typeof order === "string" ? order : [...order].join(",");
  return put("/kv", `maand/job/${jobName()}`, "rollout_order", workers, {});
}

/** Read the rollout order in the store, comma-joined in `value`. `(await getRolloutOrder()).json().value.split(",")` */
export function getRolloutOrder(): Promise<Response> {
  return getStoreValue(`maand/job/${jobName()}`, "rollout_order");
}

/** List the hooks of other jobs that demand this hook. `(await listHookDemands()).json().map((demand) => demand.job)` */
export function listHookDemands(): Promise<Response> {
  return callApi("GET", "/demands");
}

function put(path: string, namespace: string, key: string, value: string, options: PutOptions): Promise<Response> {
  const fields: Fields = { namespace, key, value };
  if (options.ttl) fields.ttl = options.ttl;
  if (options.ifVersion !== undefined) fields.if_version = options.ifVersion;
  if (options.ifAbsent) fields.if_absent = true;
  return callApi("PUT", path, fields);
}

/* --- semaphores --------------------------------------------------------------------------------------------------- */

/** How a semaphore is asked for: its capacity (1), and how long to wait (600 s). */
export type SemaphoreOptions = { capacity?: number; timeoutSeconds?: number };

/**
 * Wait for a slot; first come, first served, among the job's invocations on this event. Status 408 when not granted in time.
 * A slot belongs to this process: however it ends, the slot is free again.
 *
 *     (await acquireSemaphore("migrate")).json().fencing_token
 */
export function acquireSemaphore(name: string, options: SemaphoreOptions = {}): Promise<Response> {
  const timeoutSeconds = options.timeoutSeconds ?? 600;
  const fields = { name, capacity: options.capacity ?? 1, timeout_seconds: timeoutSeconds };
  return callApi("POST", "/semaphore/acquire", fields, timeoutSeconds + WAIT_MARGIN);
}

/** Give the slot back. Status 409 when this process holds none. `await releaseSemaphore("migrate")` */
export function releaseSemaphore(name: string): Promise<Response> {
  return callApi("POST", "/semaphore/release", { name });
}

/** See who is in a semaphore. `(await semaphoreStatus("migrate")).json().holders` */
export function semaphoreStatus(name: string): Promise<Response> {
  return callApi("GET", "/semaphore/status", { name });
}

/**
 * Hold a slot while a function runs: acquire or throw, always release.
 *
 *     await withSemaphore("migrate", async (slot) => migrate(slot.fencingToken));
 */
export async function withSemaphore<T>(
  name: string,
  body: (slot: { fencingToken: number }) => T | Promise<T>,
  options: SemaphoreOptions = {},
): Promise<T> {
  const response = await acquireSemaphore(name, options);
  response.raiseForStatus();
  let result: T;
  try {
    result = await body({ fencingToken: response.json().fencing_token });
  } catch (error) {
    await releaseSemaphore(name).catch(() => undefined); // the error of the body says more than one of the release
    throw error;
  }
  (await releaseSemaphore(name)).raiseForStatus();
  return result;
}

/* --- workers ------------------------------------------------------------------------------------------------------ */

/** How a command is run. `check` (true): throw `SSHError` when it fails. `checkHost`: refuse a worker of another bucket. */
export type SshOptions = { timeout?: number; check?: boolean; stdin?: string; checkHost?: boolean };

/**
 * Run a shell command line on a worker of this job. `MaandError` says that it did not run: worker unreachable (502), not a
 * worker of this job (403).
 *
 *     (await runSsh(allocationIp(), "systemctl is-active api")).stdout.trim()
 */
export async function runSsh(workerIp: string, command: string, options: SshOptions = {}): Promise<SSHResult> {
  const timeout = options.timeout ?? 300;
  const fields: Fields = { worker: workerIp, command, timeout_seconds: timeout };
  if (options.stdin !== undefined) fields.stdin = options.stdin;
  if (options.checkHost) fields.check_host = true;
  const response = await callApi("POST", "/ssh", fields, timeout + WAIT_MARGIN);
  response.raiseForStatus();
  const result = new SSHResult(workerIp, command, response.json());
  if (options.check ?? true) result.raiseForStatus();
  return result;
}

/** Which worker (this one) and job (this one) a target is run for, and for how long at most (300 s). */
export type MakeOptions = { workerIp?: string; job?: string; timeout?: number };

/**
 * Run `make -C <job directory> <target>` on a worker, as a deploy does; throws `SSHError` when it fails,
 * `MaandError` for a target that make would take for an option (`-n`) or a variable (`SHELL=…`).
 *
 *     await runMakeTarget("reload");
 *     await runMakeTarget("backup", { workerIp: rolloutOrder()[0] });
 */
export function runMakeTarget(target: string, options: MakeOptions = {}): Promise<SSHResult> {
  if (!target || target.startsWith("-") || target.includes("=")) {
    const message = `${JSON.stringify(target)} is not a make target: name a rule of the Makefile`;
    return Promise.reject(new MaandError(message, { code: "invalid_argument" }));
  }
  const worker = options.workerIp ?? allocationIp();
  const job = options.job ?? jobName();
  const own = environment("JOB_PATH");
  const directory = job === jobName() ? own : `${own.replace(/\/+$/, "").replace(/\/[^/]*$/, "")}/${job}`;
  const variables: Record<string, string> = {
    JOB: job,
    CURRENT_VERSION: currentVersion(),
    NEW_VERSION: newVersion(),
    ALLOCATION_IP: worker,
  };
  if (worker === allocationIp()) variables.ALLOCATION_INDEX = String(allocationIndex());
  const assignments = Object.entries(variables).map(([name, value]) => `${name}=${quoted(value)}`).join(" ");
  const command = `env ${assignments} make -s -C ${quoted(directory)} -- ${quoted(target)}`;
  return runSsh(worker, command, { timeout: options.timeout ?? 300 });
}

/** Further parts of an HTTP request. `tls` may hold `client_certificate`, `server_name`, `insecure_skip_verify`. */
export type HttpOptions = {
  headers?: Record<string, string>;
  body?: string;
  timeoutSeconds?: number;
  tls?: { client_certificate?: string; server_name?: string; insecure_skip_verify?: boolean };
};

/** What a worker answered; header names in lower case. */
export type HttpAnswer = { status_code: number; headers: Record<string, string>; body: string; truncated: boolean };

/**
 * Send an HTTP request to a worker of this job, from maand's machine; trusts the bucket's CA.
 *
 *     (await httpRequest("GET", `https://${allocationIp()}:8443/healthz`)).status_code
 */
export async function httpRequest(method: string, url: string, options: HttpOptions = {}): Promise<HttpAnswer> {
  const timeoutSeconds = options.timeoutSeconds ?? 30;
  const fields: Fields = { method, url, timeout_seconds: timeoutSeconds };
  if (options.headers) fields.headers = options.headers;
  if (options.body) fields.body = options.body;
  if (options.tls) fields.tls = options.tls;
  const response = await callApi("POST", "/http", fields, timeoutSeconds + WAIT_MARGIN);
  response.raiseForStatus();
  return response.json();
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'"'"'`)}'`;
}

/** Put a line into the summary of the run. `notice("schema is at version 42")` */
export function notice(text: string): void {
  const lines = String(text).split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop(); // what ends with a line end has no empty line behind it
  for (const line of lines) process.stdout.write(`${NOTICE_PREFIX}${line}\n`);
}

/* --- the runtime API ---------------------------------------------------------------------------------------------- */

/** Fields of a request, named as in docs/hook-api.md. */
export type Fields = Record<string, unknown>;

const agent = new http.Agent({ keepAlive: true, maxFreeSockets: 1, timeout: IDLE_LIMIT * 1000 });

/** Paths that are not repeated when a kept connection ended under our hands. */
const ONCE = new Set(["/ssh", "/http", "/semaphore/release"]);

/**
 * Call any route of the runtime API; the functions above all go through here.
 *
 *     (await callApi("GET", "/kv", { namespace: "vars/job/api", key: "leader", version: 1 })).json().value
 */
export async function callApi(method: string, path: string, fields: Fields = {}, timeout = CALL_TIMEOUT): Promise<Response> {
  const request = describe(method, path, fields);
  try {
    return await sendWhenServed(request, timeout);
  } catch (error) {
    if (!(error instanceof StaleConnection) || ONCE.has(path)) throw unreachable(error);
  }
  try {
    return await sendWhenServed(request, timeout);
  } catch (error) {
    throw unreachable(error);
  }
}

type Request = { method: string; path: string; headers: Record<string, string>; body: string };

const IDENTITY = [
  ["X-ALLOCATION-ID", "ALLOCATION_ID"], ["HOOK", "HOOK"], ["EVENT", "EVENT"], ["traceparent", "TRACEPARENT"],
] as const;

/** Write the request; `GET` and `DELETE` carry their fields in the query. */
function describe(method: string, path: string, fields: Fields): Request {
  const inQuery = method === "GET" || method === "DELETE";
  const headers: Record<string, string> = {};
  for (const [name, variable] of IDENTITY) {
    const value = process.env[variable];
    if (value !== undefined) headers[name] = value;
  }
  if (process.env.HOOK_API_TOKEN !== undefined) headers.Authorization = `Bearer ${process.env.HOOK_API_TOKEN}`;
  if (method === "DELETE" || path === "/semaphore/acquire" || "if_version" in fields || "if_absent" in fields) {
    headers["X-REQUEST-ID"] = randomUUID(); // a repeat then returns the first outcome
  }
  const body = inQuery ? "" : JSON.stringify(fields);
  if (!inQuery) {
    headers["Content-Type"] = "application/json";
    headers["Content-Length"] = String(Buffer.byteLength(body));
  }
  return { method, path: path + (inQuery ? query(fields) : ""), headers, body };
}

function query(fields: Fields): string {
  const pairs = Object.entries(fields).map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`);
  return pairs.length ? `?${pairs.join("&")}` : "";
}

/** A kept connection ended before it answered: the request may be sent again on a new one. */
class StaleConnection extends Error {}

/** Pauses between attempts to connect, seconds; by hand, without a token, nobody is waited for. */
const CONNECT_PAUSES = [0.1, 0.2, 0.4, 0.8, 1.5, 2.0];

/** Send; a gateway that just restarts is waited for, five seconds at most: nothing was sent yet. */
async function sendWhenServed(request: Request, timeout: number): Promise<Response> {
  for (const pause of process.env.HOOK_API_TOKEN === undefined ? [] : CONNECT_PAUSES) {
    try {
      return await send(request, timeout);
    } catch (error) {
      if (!isRefused(error)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, pause * 1000));
  }
  return send(request, timeout);
}

/** Nobody listens: Node's word for it, or Bun's. */
function isRefused(error: unknown): boolean {
  return error instanceof Error && ["ECONNREFUSED", "ConnectionRefused"].includes((error as Error & { code?: string }).code ?? "");
}

function send(request: Request, timeout: number): Promise<Response> {
  return new Promise((resolve, reject) => {
    const outgoing = http.request(
      {
        host: process.env.HOOK_API_HOST ?? "127.0.0.1",
        port: Number(process.env.HOOK_API_PORT ?? "8080"),
        method: request.method,
        path: request.path,
        headers: request.headers,
        agent,
      },
      (incoming) => {
        const chunks: Uint8Array[] = [];
        incoming.on("data", (chunk: Uint8Array) => chunks.push(chunk));
        incoming.on("error", reject);
        incoming.on("end", () => resolve(new Response(incoming.statusCode ?? 0, flat(incoming.headers), Buffer.concat(chunks))));
      },
    );
    outgoing.setTimeout(timeout * 1000, () => outgoing.destroy(new MaandError("the runtime API did not answer in time", { code: "timeout" })));
    outgoing.on("error", (error) => reject(isStale(outgoing, error) ? new StaleConnection(error.message) : error));
    outgoing.end(request.body);
  });
}

function isStale(outgoing: http.ClientRequest, error: Error): boolean {
  return outgoing.reusedSocket === true && !(error instanceof MaandError);
}

function flat(headers: http.IncomingHttpHeaders): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : (value ?? "")]));
}

function unreachable(error: unknown): MaandError {
  if (error instanceof MaandError) return error;
  const where = `${process.env.HOOK_API_HOST ?? "127.0.0.1"}:${process.env.HOOK_API_PORT ?? "8080"}`;
  const why = error instanceof Error ? error.message : String(error);
  return new MaandError(`the runtime API at ${where} could not be reached (${why}); it serves while maand runs this hook`, {
    code: "unreachable",
  });
}

/* --- other names for the same --------------------------------------------------------------------------------------- */

export {
  allocationId as getAllocationId,
  allocationIp as getAllocationIp,
  jobName as getJob,
  hookEvent as getEvent,
  getStoreValue as kvGet,
  putJobVariable as kvPut,
  putJobSecret as kvPutSecret,
  listHookDemands as getDemands,
};
