// StartRetryingCall makes one asynchronous unary call, tried again with growing pauses while the
// peer is away (or, where asked, overloaded) and the deadline has not come. Other answers are
// final.
//
//   rpc::StartRetryingCall(calls_, rpc::RetryOn::kUnavailable, stub_->async(),
//                          &v1::TrainerService::StubInterface::async_interface::Save, request,
//                          deadline, std::move(done));
//
// Requests are idempotent by their request id, so that a lost answer may be asked for again.

#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>

#include "common/rpc/call_group.h"
#include "common/rpc/done.h"
#include "common/rpc/grpc_status.h"

namespace rein::rpc {

enum class RetryOn {
  kNothing,  // for calls whose UNAVAILABLE may speak of somebody else
  kUnavailable,
  kUnavailableOrExhausted,  // for services whose queue may be full
};

inline constexpr absl::Duration kFirstRetryPause = absl::Milliseconds(50);
inline constexpr absl::Duration kLongestRetryPause = absl::Seconds(2);

template <typename Request, typename Reply>
class RetryingCall final : public std::enable_shared_from_this<RetryingCall<Request, Reply>> {
 public:
  using Attempt = std::function<void(grpc::ClientContext*, const Request*, Reply*,
                                     std::function<void(grpc::Status)>)>;

  RetryingCall(CallGroup& calls, RetryOn retry_on, Request request, absl::Duration deadline,
               Done<Reply> done, Attempt attempt)
      : calls_(calls),
        retry_on_(retry_on),
        request_(std::move(request)),
        end_(absl::Now() + deadline),
        done_(std::move(done)),
        attempt_(std::move(attempt)) {}

  void Start() {
    std::weak_ptr<RetryingCall> weak = this->weak_from_this();
    id_ = calls_.Enter([weak] {
      if (auto self = weak.lock()) self->Cancel();
    });
    Try();
  }

 private:
  void Try() {
    grpc::ClientContext* context = nullptr;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      context_ = std::make_unique<grpc::ClientContext>();
      context_->set_deadline(absl::ToChronoTime(end_));
      if (cancelled_) context_->TryCancel();
      context = context_.get();
    }
    reply_.Clear();
    attempt_(context, &request_, &reply_,
             [self = this->shared_from_this()](grpc::Status status) { self->OnAnswer(status); });
  }

  void OnAnswer(const grpc::Status& status) {
    bool retry =
        (retry_on_ != RetryOn::kNothing && status.error_code() == grpc::StatusCode::UNAVAILABLE) ||
        (retry_on_ == RetryOn::kUnavailableOrExhausted &&
         status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (retry && !cancelled_ && absl::Now() + pause_ < end_) {
        alarm_ = std::make_unique<grpc::Alarm>();
        alarm_->Set(absl::ToChronoTime(absl::Now() + pause_),
                    [self = this->shared_from_this()](bool) { self->Try(); });
        pause_ = std::min(pause_ * 2, kLongestRetryPause);
        return;
      }
      alarm_ = nullptr;    // gone off, it would keep this call for ever, and this call keeps it
      context_ = nullptr;  // it keeps the channel, which must not end here, in gRPC's own thread, once the client is gone
    }
    if (status.ok()) {
      done_(std::move(reply_));
    } else {
      done_(FromGrpc(status));
    }
    done_ = nullptr;
    calls_.Leave(id_);
  }

  void Cancel() {
    std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    if (context_ != nullptr) context_->TryCancel();
    if (alarm_ != nullptr) alarm_->Cancel();
  }

  CallGroup& calls_;
  const RetryOn retry_on_;
  const Request request_;
  const absl::Time end_;
  Done<Reply> done_;
  const Attempt attempt_;
  Reply reply_;
  uint64_t id_ = 0;
  absl::Duration pause_ = kFirstRetryPause;

  std::mutex mutex_;
  bool cancelled_ = false;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::Alarm> alarm_;
};

template <typename Async, typename Request, typename Reply>
void StartRetryingCall(CallGroup& calls, RetryOn retry_on, Async* async,
                       void (Async::*method)(grpc::ClientContext*, const Request*, Reply*,
                                             std::function<void(grpc::Status)>),
                       const Request& request, absl::Duration deadline, Done<Reply> done) {
  auto attempt = [async, method](grpc::ClientContext* context, const Request* message, Reply* reply,
                                 std::function<void(grpc::Status)> on_answer) {
    (async->*method)(context, message, reply, std::move(on_answer));
  };
  std::make_shared<RetryingCall<Request, Reply>>(calls, retry_on, request, deadline,
                                                 std::move(done), std::move(attempt))
      ->Start();
}

}  // namespace rein::rpc
