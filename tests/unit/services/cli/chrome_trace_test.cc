#include "services/cli/chrome_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace rein::cli {
namespace {

using Json = nlohmann::json;

void AddSpan(v1::UpdateRecord& update, const std::string& work, const std::string& actor, double begin, double end) {
  v1::WorkSpan& span = *update.add_spans();
  span.set_work(work);
  span.set_actor(actor);
  span.set_about("group 1");
  span.set_begin(begin);
  span.set_end(end);
}

// Those called `name`, by begin.
std::vector<Json> Slices(const Json& trace, const std::string& name) {
  std::vector<Json> slices;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "X" && event["name"] == name) slices.push_back(event);
  }
  return slices;
}

TEST(ChromeTraceTest, CallsThatOverlapStandInLanesOfTheirOwn) {
  v1::ListUpdatesReply updates;
  v1::UpdateRecord& update = *updates.add_updates();
  update.set_update(3);
  v1::Metric& seconds = *update.add_metrics();
  seconds.set_name("seconds");
  seconds.set_value(4);
  AddSpan(update, "generate", "rollout-0", 1000, 1002);
  AddSpan(update, "generate", "rollout-0", 1001, 1003);
  AddSpan(update, "score", "reward-0", 1002, 1002.5);
  AddSpan(update, "generate", "rollout-0", 1002, 1003);
  AddSpan(update, "train", "trainer-0", 1003, 1004);
  const Json trace = Json::parse(ChromeTrace(updates));
  const std::vector<Json> generate = Slices(trace, "generate");
  ASSERT_EQ(generate.size(), 3u);
  EXPECT_EQ(generate[0]["ts"], 0.0);
  EXPECT_EQ(generate[0]["dur"], 2e6);
  EXPECT_NE(generate[0]["tid"], generate[1]["tid"]);
  EXPECT_EQ(generate[0]["tid"], generate[2]["tid"]);  // free again
  EXPECT_EQ(generate[0]["pid"], generate[1]["pid"]);
  EXPECT_NE(generate[0]["pid"], Slices(trace, "train")[0]["pid"]);
  const Json whole = Slices(trace, "update 3")[0];
  EXPECT_EQ(whole["ts"], 0.0);
  EXPECT_EQ(whole["dur"], 4e6);
  std::vector<std::string> processes;
  for (const Json& event : trace["traceEvents"]) {
    if (event["ph"] == "M") processes.push_back(event["args"]["name"]);
  }
  EXPECT_THAT(processes, testing::UnorderedElementsAre("updates", "rollout-0", "reward-0", "trainer-0"));
}

TEST(ChromeTraceTest, UpdatesOfAnOlderServerHaveNoSpans) {
  v1::ListUpdatesReply updates;
  updates.add_updates()->set_update(1);
  EXPECT_TRUE(Slices(Json::parse(ChromeTrace(updates)), "update 1").empty());
}

}  // namespace
}  // namespace rein::cli
