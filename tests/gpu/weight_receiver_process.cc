#include "tests/gpu/weight_receiver_process.h"

#include <signal.h>

#include <cstdlib>
#include <iostream>
#include <memory>

#include "common/models/decoder_spec.h"
#include "common/models/model_folder.h"
#include "common/policy/policy_slots.h"
#include "common/rpc/fence_guard.h"
#include "common/rpc/server.h"
#include "common/sync/clock.h"
#include "common/weights/channel/weight_service.h"

namespace rein::gpu {
namespace {

models::DecoderSpec TestSpec() {
  models::DecoderSpec spec;
  spec.vocab_size = 50000;
  spec.model_dim = 1024;
  spec.num_layers = 4;
  spec.num_heads = 16;
  spec.num_kv_heads = 8;
  spec.head_dim = 64;
  spec.ffn_dim = 3072;
  spec.max_positions = 64;
  return spec;
}

}  // namespace

weights::Registry TestRegistry() {
  return *weights::Registry::Create(models::DecoderParameters(TestSpec()));
}

int WeightReceiverMain(int argc, char** argv) {
  const bool given = argc == 2;
  if (given) setenv("CUDA_VISIBLE_DEVICES", argv[1], 1);  // as every role sees its own GPU alone
  auto slots = policy::PolicySlots::Create(given ? models::DescribeModel(argv[0])->spec : TestSpec(),
                                           {.device = at::Device(at::kCUDA, 0)});
  if (!slots.ok()) {
    std::cerr << slots.status() << "\n";
    return 1;
  }
  sync::RealClock clock;
  auto receiver = std::make_shared<weights::WeightReceiver>(**slots, clock);
  rpc::FenceGuard fence(clock);
  fence.Open();
  weights::WeightServiceImpl service([receiver] { return receiver; }, fence);
  auto server = rpc::Server::Create("127.0.0.1:0", &service);
  std::cout << (*server)->address() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    auto current = receiver->current();
    if (current.has_value()) {
      std::cout << current->lineage << "." << current->number << " " << receiver->digest() << std::endl;
    } else {
      std::cout << "none" << std::endl;
    }
  }
  return 0;
}

namespace {

std::vector<std::string> Behind(const std::string& first, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), first);
  return arguments;
}

}  // namespace

WeightReceiverProcess::WeightReceiverProcess(const std::string& host, const std::vector<std::string>& arguments)
    : name_(host), process_(host, Behind("--weight-receiver", arguments)), address_(process_.ReadLine()) {}

void WeightReceiverProcess::Freeze() { process_.Signal(SIGSTOP); }
void WeightReceiverProcess::Thaw() { process_.Signal(SIGCONT); }

std::string WeightReceiverProcess::InUse() {
  return process_.Write("?") ? process_.ReadLine() : "gone";
}

}  // namespace rein::gpu
