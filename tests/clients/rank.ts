// Runs a ranking by the client that @hey-api/openapi-ts made: `rank.ts SDK URL DATASET CHECKPOINT...` prints the order.
import type * as Sdk from "./made/sdk.gen";

const [where, baseUrl, dataset_id, ...checkpoint_ids] = process.argv.slice(2);
const { createRanking, getRanking } = (await import(`${where}/sdk.gen.ts`)) as typeof Sdk;

let { data, error } = await createRanking({ baseUrl, body: { dataset_id, checkpoint_ids } });
while (data && (data.state === "queued" || data.state === "running")) {
  await new Promise((done) => setTimeout(done, 200));
  ({ data, error } = await getRanking({ baseUrl, path: { id: data.id } }));
}
if (data?.state !== "succeeded") throw new Error(JSON.stringify(error ?? data?.error));
console.log(data.candidates.map((candidate) => candidate.checkpoint_id).join(" "));
