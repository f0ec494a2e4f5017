#include "tests/gpu/weight_receiver_process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>

#include "common/models/decoder_spec.h"
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

int WeightReceiverMain() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto slots = policy::PolicySlots::Create(TestSpec(), {.device = at::Device(at::kCUDA, 0)});
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

WeightReceiverProcess::WeightReceiverProcess(const std::string& name) : name_(name) {
  int in[2], out[2];
  if (pipe(in) != 0 || pipe(out) != 0) std::abort();
  pid_ = fork();
  if (pid_ == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    for (int fd : {in[0], in[1], out[0], out[1]}) close(fd);
    setenv("NCCL_HOSTID", name.c_str(), 1);  // ranks that share a GPU must look like separate hosts
    execl("/proc/self/exe", "rein-gpu-tests", "--weight-receiver", nullptr);
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  to_child_ = in[1];
  from_child_ = out[0];
  address_ = ReadLine();
}

WeightReceiverProcess::~WeightReceiverProcess() {
  Thaw();
  close(to_child_);
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  close(from_child_);
}

void WeightReceiverProcess::Freeze() { kill(pid_, SIGSTOP); }
void WeightReceiverProcess::Thaw() { kill(pid_, SIGCONT); }

std::string WeightReceiverProcess::InUse() {
  if (write(to_child_, "?\n", 2) != 2) return "gone";
  return ReadLine();
}

std::string WeightReceiverProcess::ReadLine() {
  std::string line;
  char c;
  while (read(from_child_, &c, 1) == 1 && c != '\n') line.push_back(c);
  return line;
}

}  // namespace rein::gpu
