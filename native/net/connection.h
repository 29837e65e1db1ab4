// Connection: frames over one connected stream socket, for both ends of the RPC.
//
// Receiving: capability and body arrive in one string, the payload in memory that the owner names
// when it has seen the header; CRCs are verified as the bytes come. Sending: frames queue and leave
// together at the end of the reactor's round, gathered from where their bytes lie.
//
// Thread safety: the reactor's thread only. Ownership: the owner holds a shared_ptr and must
// outlive the open connection (close() ends all calls to it); the connection owns the descriptor.
// Invariants:
//  1. The owner is never called after connection_closed() or close().
//  2. Memory named by the owner is written only between frame_begins() and frame_arrived() of that
//     frame, and no longer after discard_payload(); memory of a sent frame is read only until
//     frame_sent(), and no longer after detach().
//  3. A bad frame closes the connection with kBadRequest, its detail naming the field.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/reactor.h"
#include "base/status.h"
#include "wire/frame.h"

namespace fs3::net {

// A frame on its way out.
struct OutFrame {
  uint64_t request_id = 0;
  std::array<std::byte, wire::kHeaderSize> header;
  std::string head;                                 // capability and body
  std::vector<std::span<const std::byte>> payload;  // gathered in order
  std::vector<Buffer> keep;                         // what payload points into, if it is ours
  size_t size() const;
};

struct Traffic {
  std::atomic<uint64_t> bytes_in{0};
  std::atomic<uint64_t> bytes_out{0};
};

class Connection final : public Reactor::FdHandler,
                         public std::enable_shared_from_this<Connection> {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // A valid header has arrived. Name the memory for the payload (at least header.payload_len
    // bytes), or leave `target` empty to have it thrown away. An error closes the connection.
    virtual Status frame_begins(const wire::Header& header,
                                std::vector<std::span<std::byte>>* target) = 0;
    // `head` is capability and body. The frame is complete and its checksums hold.
    virtual void frame_arrived(const wire::Header& header, std::string head) = 0;
    // The payload is not what its checksum says, all else of the frame is sound. False: that ends
    // the connection. True: frame_damaged() is called instead of frame_arrived(), and it goes on,
    // because the memory that the payload went to may be changed by others meanwhile.
    virtual bool survives_damage(const wire::Header& header) {
      (void)header;
      return false;
    }
    virtual void frame_damaged(const wire::Header& header) { (void)header; }
    // The last byte of the frame has gone to the kernel.
    virtual void frame_sent(uint64_t request_id) = 0;
    // The peer or an error ended the connection. The last call to the owner.
    virtual void connection_closed(const Status& why) = 0;
  };

  // Takes over `fd`, connected and non-blocking.
  Connection(Reactor& reactor, int fd, Owner* owner, Traffic* traffic);
  ~Connection() override;
  // Begins to read. On failure the connection is closed and the owner is not called.
  Status start();

  void send(OutFrame frame);
  // Ends the use of that frame's memory: forgets the frame when none of it has left, else copies
  // what is still to leave.
  void detach(uint64_t request_id);
  // Throws away the rest of the payload that is arriving.
  void discard_payload();
  // The frame that is arriving: its header has been seen, its end has not. Null when none.
  const wire::Header* arriving() const;

  void pause_reading();
  void resume_reading();

  // At once, without a call to the owner. What is queued is lost.
  void close();
  // Takes no further frame, sends what is queued, and closes once the peer has closed.
  void close_after_flush();
  bool is_open() const { return fd_ >= 0; }

  // Whether the peer holds up the connection (net/limits.h) as seen at `now_ns`; the status says
  // how.
  Status check_progress(int64_t now_ns) const;

  void on_events(uint32_t events) override;

 private:
  enum class Stage { kHeader, kHead, kPayload };
  static constexpr size_t kScratchSize = 16 << 10;

  void fail(const Status& why);
  bool reading() const { return is_open() && !paused_ && !closing_; }

  void drain();
  void read_some();
  ssize_t receive(size_t* wanted);
  void absorb(size_t received);
  void parse_scratch();
  bool step_from_scratch();
  void take_header(const std::byte* bytes);
  void advance_payload(size_t size);
  void next_stage();
  void finish_frame();
  std::span<std::byte> payload_room();

  void schedule_flush();
  void flush();
  size_t gather(std::vector<iovec>* pieces) const;
  void advance_queue(size_t sent);
  void update_interest();

  Reactor& reactor_;
  int fd_;
  Owner* owner_;
  Traffic* traffic_;
  uint32_t interest_ = 0;
  bool paused_ = false;
  bool closing_ = false;
  int64_t closing_since_ns_ = 0;

  // The frame that is arriving.
  Stage stage_ = Stage::kHeader;
  wire::Header header_;
  std::string head_;
  size_t head_filled_ = 0;
  std::vector<std::span<std::byte>> target_;
  size_t target_index_ = 0;
  size_t target_offset_ = 0;
  size_t payload_left_ = 0;
  uint32_t payload_crc_ = 0;
  int64_t frame_since_ns_ = 0;  // when its first bytes came; 0 between frames
  size_t frame_bytes_ = 0;      // received of it so far

  // Bytes received ahead of their place: headers, small bodies, the start of payloads.
  std::unique_ptr<std::byte[]> scratch_;
  size_t scratch_begin_ = 0;
  size_t scratch_end_ = 0;

  std::deque<OutFrame> queue_;
  size_t front_sent_ = 0;  // bytes of queue_.front() that have left
  bool flush_scheduled_ = false;
  bool write_blocked_ = false;
  int64_t write_blocked_since_ns_ = 0;
};

}  // namespace fs3::net
