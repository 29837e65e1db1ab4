// Routing info as clients and storage servers decode it, the placement of a file on it, and the
// addresses in it. Input: a layout, a serialized RoutingInfo.
#include "client/routing.h"
#include "common.pb.h"
#include "fuzz.h"
#include "net/address.h"
#include "storage/routing.h"

namespace fs3::fuzz {
namespace {

proto::Layout take_layout(Input& in) {
  proto::Layout layout;
  layout.set_chain_table(in.byte());
  layout.set_chain_table_version(in.byte());
  layout.set_chunk_size(in.byte() % 2 == 0 ? 1u << 20 : in.take<uint32_t>());
  layout.set_stripe(in.take<uint16_t>());
  layout.set_seed(in.take<uint64_t>());
  return layout;
}

void place(const proto::Layout& layout, const client::RoutingSnapshot& routing) {
  auto placement = client::Placement::create(layout);
  if (!placement.ok()) return;
  FS3_CHECK((*placement)->stripe() > 0 && (*placement)->chunk_size() >= (64u << 10));
  for (uint64_t index : {uint64_t{0}, uint64_t{1}, UINT64_MAX}) {
    auto chain = (*placement)->chain_of(index, routing);
    if (chain) (void)routing.chain(*chain);
  }
}

// Names are not looked up: only what a decoder of numbers and paths sees.
void resolve(const std::string& address) {
  bool numbers = address.find_first_not_of("0123456789.:[]tcp/") == std::string::npos;
  if (numbers || address.starts_with("unix:")) (void)net::resolve(address);
}

bool same(const storage::Routing& a, const storage::Routing& b) {
  return a.version == b.version && a.own.size() == b.own.size() && a.addresses == b.addresses;
}

}  // namespace

const size_t kSealedFrom = kNotSealed;

bool accepts(std::string_view input) {
  Input in(input);
  proto::Layout layout = take_layout(in);
  uint32_t node = in.byte();
  std::string bytes(in.rest());
  auto snapshot = client::RoutingSnapshot::parse(bytes);
  auto server = storage::Routing::parse(bytes, node);
  if (snapshot.ok()) {
    place(layout, **snapshot);
    for (const auto& [id, addresses] : (*snapshot)->nodes) {
      (void)client::choose_address(addresses, node);
      for (const std::string& address : addresses) resolve(address);
    }
  }
  if (!server.ok()) {
    FS3_CHECK(server.status().code() == kBadRequest);
    return false;
  }
  FS3_CHECK(snapshot.ok() && (*snapshot)->version == server->version);
  for (const auto& own : server->own) FS3_CHECK(own.target != 0 && own.view.version != 0);
  proto::RoutingInfo info;
  FS3_CHECK(info.ParseFromString(bytes));
  auto again = storage::Routing::parse(info.SerializeAsString(), node);
  FS3_CHECK(again.ok() && same(*again, *server));
  return true;
}

}  // namespace fs3::fuzz
