// The weight channel over gRPC: BeginWeights, a stream of SendWeights chunks, CommitWeights.

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/status/status_macros.h"
#include "common/weights/channel/weight_channel.h"
#include "common/weights/digest.h"
#include "rein/v1/weights.grpc.pb.h"

namespace rein::weights {
namespace {

constexpr uint64_t kChunkBytes = 1 << 20;

// The calls to one receiver.
class Transfer {
 public:
  Transfer(const Publication& publication, const Receiver& receiver)
      : publication_(publication), receiver_(receiver),
        stub_(v1::WeightService::NewStub(rpc::Connect(receiver.address))),
        end_(absl::Now() + publication.deadline) {}

  absl::Status Run() {
    absl::Status status = BeginToCommit();
    if (!status.ok()) Abort();
    return status;
  }

 private:
  absl::Status BeginToCommit() {
    REIN_RETURN_IF_ERROR(Begin());
    REIN_RETURN_IF_ERROR(SendChunks());
    return Commit();
  }

  template <typename Request>
  void Address(Request* request, const char* stage) const {
    *request->mutable_fence() = publication_.fence;
    request->mutable_fence()->set_request_id(
        absl::StrCat(publication_.fence.request_id(), "/", receiver_.name, "/", stage));
    request->mutable_fence()->set_actor_epoch(receiver_.actor_epoch);
    request->mutable_version()->set_lineage(publication_.version.lineage);
    request->mutable_version()->set_number(publication_.version.number);
  }

  absl::Status Begin() {
    v1::BeginWeightsRequest request;
    Address(&request, "begin");
    for (const PlannedParameter& p : publication_.plan.parameters) {
      v1::ParameterPlan* plan = request.add_parameters();
      plan->set_name(p.name);
      for (int64_t size : p.shape) plan->add_shape(size);
      plan->set_dtype(p.dtype);
      plan->set_offset_bytes(p.offset_bytes);
      plan->set_size_bytes(p.size_bytes);
    }
    request.set_arena_bytes(publication_.plan.arena_bytes);
    request.set_transport(v1::WEIGHT_TRANSPORT_GRPC);
    request.set_deadline_seconds(absl::ToDoubleSeconds(publication_.deadline));
    grpc::ClientContext context;
    rpc::SetDeadline(context, end_ - absl::Now());
    v1::BeginWeightsReply reply;
    return rpc::FromGrpc(stub_->BeginWeights(&context, request, &reply));
  }

  absl::Status SendChunks() {
    grpc::ClientContext context;
    rpc::SetDeadline(context, end_ - absl::Now());
    v1::SendWeightsReply reply;
    auto stream = stub_->SendWeights(&context, &reply);
    v1::WeightChunk chunk;
    Address(&chunk, "send");
    for (uint64_t offset = 0; offset < publication_.plan.arena_bytes; offset += kChunkBytes) {
      const uint64_t size = std::min(kChunkBytes, publication_.plan.arena_bytes - offset);
      chunk.set_offset_bytes(offset);
      chunk.set_data(publication_.arena + offset, size);
      if (!stream->Write(chunk)) break;  // Finish() says why
      chunk.clear_fence();
    }
    stream->WritesDone();
    return rpc::FromGrpc(stream->Finish());
  }

  absl::Status Commit() {
    v1::CommitWeightsRequest request;
    Address(&request, "commit");
    for (uint64_t digest : publication_.digests) request.add_parameter_digests(digest);
    request.set_digest(CombineDigests(publication_.digests));
    request.set_in_flight(publication_.in_flight == InFlight::kFinish
                              ? v1::IN_FLIGHT_POLICY_FINISH
                              : v1::IN_FLIGHT_POLICY_CONTINUE);
    grpc::ClientContext context;
    rpc::SetDeadline(context, end_ - absl::Now());
    v1::CommitWeightsReply reply;
    REIN_RETURN_IF_ERROR(rpc::FromGrpc(stub_->CommitWeights(&context, request, &reply)));
    if (reply.digest() == request.digest()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("committed digest ", absl::Hex(reply.digest()), ", want ",
                                            absl::Hex(request.digest())));
  }

  void Abort() {
    v1::AbortWeightsRequest request;
    Address(&request, "abort");
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(2));
    v1::AbortWeightsReply reply;
    stub_->AbortWeights(&context, request, &reply);
  }

  const Publication& publication_;
  const Receiver& receiver_;
  std::unique_ptr<v1::WeightService::Stub> stub_;
  absl::Time end_;
};

class GrpcChannel final : public WeightChannel {
 public:
  std::vector<Outcome> Send(const Publication& publication,
                            const std::vector<Receiver>& receivers) override {
    std::vector<Outcome> outcomes(receivers.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < receivers.size(); ++i) {
      threads.emplace_back([&, i] {
        outcomes[i] = {receivers[i].name, Transfer(publication, receivers[i]).Run()};
      });
    }
    for (std::thread& thread : threads) thread.join();
    return outcomes;
  }
};

}  // namespace

std::unique_ptr<WeightChannel> GrpcWeightChannel() { return std::make_unique<GrpcChannel>(); }

}  // namespace rein::weights
