#include "tests/integration/policy_fixture.h"

#include <atomic>

#include <ATen/ops/from_blob.h>

#include "common/weights/digest.h"

namespace rein::services {

TrainerSide::TrainerSide(const std::string& folder)
    : model(*models::DescribeModel(folder)),
      registry(*weights::Registry::Create(models::DecoderParameters(model.spec))),
      arena(static_cast<size_t>(registry.arena_elements())) {
  at::Tensor view = at::from_blob(arena.data(), {registry.arena_elements()}, at::kFloat);
  absl::Status status = models::LoadWeights(folder, model, registry, view);
  EXPECT_TRUE(status.ok()) << status;
}

absl::Status TrainerSide::Publish(const std::string& address, weights::Version version, float scale,
                                  weights::InFlight in_flight) {
  std::vector<float> scaled = arena;
  for (float& x : scaled) x *= scale;
  weights::Publication publication = {.fence = NewFence(),
                                      .version = version,
                                      .plan = weights::PlanOf(registry, "float32"),
                                      .arena = scaled.data(),
                                      .deadline = absl::Seconds(30),
                                      .in_flight = in_flight};
  for (const auto& parameter : publication.plan.parameters) {
    publication.digests.push_back(
        weights::Digest(reinterpret_cast<const char*>(scaled.data()) + parameter.offset_bytes,
                        parameter.size_bytes));
  }
  return weights::GrpcWeightChannel()->Send(publication, {{"receiver", address, 1}})[0].status;
}

v1::Fence NewFence(const std::string& job) {
  static std::atomic<int> next = 0;
  v1::Fence fence;
  fence.set_request_id("request-" + std::to_string(++next));
  fence.set_controller_epoch(1);
  fence.set_actor_epoch(1);
  fence.set_job(job);
  return fence;
}

}  // namespace rein::services
