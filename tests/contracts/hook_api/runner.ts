// Beside `maand.ts`: makes the calls it reads from standard input, one JSON document a line, and writes what came back.
import * as readline from "node:readline";
import * as maand from "./maand.ts";

type Call = {
  environment: Record<string, string>;
  function?: string;
  args: unknown[];
  options: Record<string, unknown>;
  method: string;
  path: string;
  fields: Record<string, unknown>;
};

const camel = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

async function callFunction(call: Call): Promise<unknown> {
  const options = Object.fromEntries(Object.entries(call.options).map(([name, value]) => [camel(name), value]));
  if (call.function === "with_semaphore") {
    const name = call.args[0] as string;
    const body = async (slot: { fencingToken: number }) => [
      slot.fencingToken > 0,
      (await maand.semaphoreStatus(name)).json().available,
    ];
    return maand.withSemaphore(name, body, options);
  }
  const args = Object.keys(options).length ? [...call.args, options] : call.args;
  return (maand as unknown as Record<string, (...args: unknown[]) => unknown>)[camel(call.function ?? "")](...args);
}

function described(result: unknown): unknown {
  if (result instanceof maand.Response) return { status: result.statusCode, json: result.json() };
  if (result instanceof maand.SSHResult) {
    return { returncode: result.returncode, stdout: result.stdout, ok: result.ok, command: result.command };
  }
  return { value: result ?? null };
}

async function outcome(call: Call): Promise<unknown> {
  try {
    if (call.function !== undefined) return described(await callFunction(call));
    return described(await maand.callApi(call.method, call.path, call.fields));
  } catch (error) {
    if (error instanceof maand.KeyError) return { error: "KeyError" };
    if (error instanceof maand.MaandError) {
      return { error: error.name, status: error.statusCode, code: error.code, message: error.message };
    }
    throw error;
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const call = JSON.parse(line) as Call;
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, call.environment);
  process.stdout.write(`${JSON.stringify(await outcome(call))}\n`);
}
