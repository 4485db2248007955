// Print what is wrong with each HTML page that standard input has, as a JSON list of {path, html}.
import { readFileSync } from "node:fs";
import { HtmlValidate } from "html-validate";

const validator = new HtmlValidate({
  root: true,
  extends: ["html-validate:standard"],
});
for (const { path, html } of JSON.parse(readFileSync(0, "utf8"))) {
  const report = await validator.validateString(html);
  for (const result of report.results) {
    for (const { line, ruleId, message } of result.messages) console.log(`${path} line ${line}: ${ruleId}: ${message}`);
  }
}
