#include "usrbio/fio/jobs.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <stdexcept>

namespace fs3::usrbio::fio {
namespace {

using Options = std::vector<std::pair<std::string, std::string>>;

// Of the kernel's engines, of fio's own bookkeeping, or how a ring works anyway.
const std::set<std::string> kIgnored{"ioengine",
                                     "direct",
                                     "invalidate",
                                     "group_reporting",
                                     "thread",
                                     "fallocate",
                                     "randrepeat",
                                     "overwrite",
                                     "mountpoint",
                                     "ior_depth",
                                     "ior_timeout",
                                     "iodepth_low",
                                     "iodepth_batch_complete_max",
                                     "allow_file_create",
                                     "refill_buffers",
                                     "unified_rw_reporting",
                                     "numa_mem_policy",
                                     "mem",
                                     "iomem",
                                     "disable_clat",
                                     "disable_slat",
                                     "lat_percentiles",
                                     "clat_percentiles",
                                     "verify_fatal",
                                     "verify_backlog",
                                     "do_verify",
                                     "serialize_overlap",
                                     "exitall",
                                     "name",
                                     "description"};

std::string trimmed(const std::string& text) {
  size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::string with_variables(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    size_t end = text.compare(i, 2, "${") == 0 ? text.find('}', i) : std::string::npos;
    if (end == std::string::npos) {
      out.push_back(text[i++]);
      continue;
    }
    std::string name = text.substr(i + 2, end - i - 2);
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) throw std::invalid_argument("the variable " + name + " is not set");
    out += value;
    i = end + 1;
  }
  return out;
}

uint64_t number(const std::string& text) {
  char* end = nullptr;
  unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end != 0) throw std::invalid_argument("not a number: '" + text + "'");
  return value;
}

bool flag(const std::string& text) { return text.empty() || number(text) != 0; }

void set_kind(Job& job, const std::string& kind) {
  static const std::map<std::string, std::vector<bool>> kKinds{
      {"read", {true, false, false}},    {"write", {false, true, false}},
      {"randread", {true, false, true}}, {"randwrite", {false, true, true}},
      {"rw", {true, true, false}},       {"readwrite", {true, true, false}},
      {"randrw", {true, true, true}}};
  auto found = kKinds.find(kind);
  if (found == kKinds.end()) throw std::invalid_argument("rw=" + kind + " is not known");
  job.reads = found->second[0];
  job.writes = found->second[1];
  job.random = found->second[2];
}

void set(Job& job, const std::string& key, const std::string& value) {
  if (key == "directory")
    job.directory = value;
  else if (key == "filename")
    job.filename = value;
  else if (key == "rw" || key == "readwrite")
    set_kind(job, value);
  else if (key == "rwmixread")
    job.percent_reads = static_cast<uint32_t>(number(value));
  else if (key == "rwmixwrite")
    job.percent_reads = 100 - static_cast<uint32_t>(number(value));
  else if (key == "bs" || key == "blocksize")
    job.block_bytes = parse_size(value);
  else if (key == "size" || key == "filesize")
    job.size_bytes = parse_size(value);
  else if (key == "io_size")
    job.io_bytes = parse_size(value);
  else if (key == "iodepth")
    job.depth = static_cast<int>(number(value));
  else if (key == "numjobs")
    job.jobs = static_cast<int>(number(value));
  else if (key == "runtime")
    job.runtime_s = parse_seconds(value);
  else if (key == "ramp_time")
    job.ramp_s = parse_seconds(value);
  else if (key == "time_based")
    job.time_based = flag(value);
  else if (key == "norandommap")
    job.random_map = !flag(value);
  else if (key == "end_fsync")
    job.end_fsync = flag(value);
  else if (key == "fsync" || key == "fdatasync")
    job.fsync_every = number(value);
  else if (key == "create_on_open" || key == "create_only")
    throw std::invalid_argument(key + " is not known");
  else if (key == "iodepth_batch" || key == "iodepth_batch_submit")
    job.batch = static_cast<int>(number(value));
  else if (key == "iodepth_batch_complete" || key == "iodepth_batch_complete_min")
    job.batch_complete_min = static_cast<int>(number(value));
  else if (key == "randseed")
    job.seed = number(value);
  else if (key == "stonewall" || key == "wait_for_previous")
    job.stonewall = true;
  else if (key == "verify" && value == "crc32c")
    job.verify = true;
  else if (key == "verify")
    throw std::invalid_argument("verify=" + value + ": only crc32c is known");
  else if (!kIgnored.contains(key))
    throw std::invalid_argument("the option " + key + " is not known");
}

void check(const Job& job) {
  auto require = [&](bool condition, const std::string& what) {
    if (!condition) throw std::invalid_argument("job " + job.name + ": " + what);
  };
  require(job.block_bytes > 0 && job.block_bytes <= 1u << 30, "bs is from 1 byte to 1 GiB");
  require(job.depth > 0 && job.depth <= 1 << 16, "iodepth is from 1 to 65536");
  require(job.jobs > 0 && job.jobs <= 1024, "numjobs is from 1 to 1024");
  require(job.percent_reads <= 100, "rwmixread is a percentage");
  require(!job.directory.empty() || !job.filename.empty(), "directory or filename is needed");
  require(!job.time_based || job.runtime_s > 0, "time_based needs a runtime");
  require(!job.verify || job.block_bytes >= 64, "verify needs blocks of 64 bytes");
  require(!job.verify || !job.reads || !job.writes, "verify of a mixed job is not known");
  require(!job.verify || !job.time_based, "verify of a time based job is not known");
}

// The sections of a job file.
std::vector<std::pair<std::string, Options>> sections_of(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::invalid_argument("cannot read the job file " + path);
  std::vector<std::pair<std::string, Options>> sections;
  for (std::string line; std::getline(file, line);) {
    line = trimmed(line);
    if (line.empty() || line[0] == ';' || line[0] == '#') continue;
    if (line[0] == '[' && line.back() == ']') {
      sections.emplace_back(line.substr(1, line.size() - 2), Options{});
      continue;
    }
    if (sections.empty()) throw std::invalid_argument(path + ": an option before the first [job]");
    size_t equal = line.find('=');
    std::string value =
        equal == std::string::npos ? "" : with_variables(trimmed(line.substr(equal + 1)));
    sections.back().second.emplace_back(trimmed(line.substr(0, equal)), value);
  }
  return sections;
}

// True when it is one of the run, not of a job.
bool set_run(Settings& settings, const std::string& key, const std::string& value) {
  if (key == "output-format") {
    if (value != "json" && value != "normal")
      throw std::invalid_argument("output-format is json or normal");
    settings.json = value == "json";
  } else if (key == "output") {
    settings.output = value;
  } else if (key == "percentile_list") {
    settings.percentiles.clear();
    for (size_t begin = 0; begin <= value.size();) {
      size_t end = std::min(value.find(':', begin), value.size());
      settings.percentiles.push_back(
          std::strtod(value.substr(begin, end - begin).c_str(), nullptr));
      begin = end + 1;
    }
  } else {
    return key == "eta" || key == "minimal";
  }
  return true;
}

}  // namespace

uint64_t parse_size(const std::string& text) {
  size_t digits = text.find_first_not_of("0123456789");
  uint64_t value = number(text.substr(0, digits));
  std::string unit = digits == std::string::npos ? "" : text.substr(digits);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (unit.ends_with("ib")) unit.resize(unit.size() - 2);
  if (unit.ends_with("b")) unit.resize(unit.size() - 1);
  static const std::map<std::string, int> kShifts{
      {"", 0}, {"k", 10}, {"m", 20}, {"g", 30}, {"t", 40}};
  auto shift = kShifts.find(unit);
  if (shift == kShifts.end() || value > UINT64_MAX >> shift->second) {
    throw std::invalid_argument("not a size: '" + text + "'");
  }
  return value << shift->second;
}

double parse_seconds(const std::string& text) {
  char* end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  static const std::map<std::string, double> kUnits{{"", 1},      {"s", 1},  {"ms", 1e-3},
                                                    {"us", 1e-6}, {"m", 60}, {"h", 3600}};
  auto unit = kUnits.find(end);
  bool number = end != text.c_str() && std::isfinite(value) && value >= 0;
  if (!number || unit == kUnits.end()) throw std::invalid_argument("not a time: '" + text + "'");
  return value * unit->second;
}

// On the command line an option counts for every job of the files; --name begins a job of its own.
Settings parse(const std::vector<std::string>& arguments) {
  Settings settings;
  Options common;
  std::vector<std::pair<std::string, Options>> own;
  std::vector<std::string> files;
  for (const std::string& argument : arguments) {
    if (!argument.starts_with("-")) {
      files.push_back(argument);
      continue;
    }
    size_t begin = argument.find_first_not_of('-');
    size_t equal = argument.find('=');
    std::string key = begin == std::string::npos ? "" : argument.substr(begin, equal - begin);
    std::string value = equal == std::string::npos ? "" : argument.substr(equal + 1);
    if (set_run(settings, key, value)) continue;
    if (key == "name")
      own.emplace_back(value, Options{});
    else
      (own.empty() ? common : own.back().second).emplace_back(key, value);
  }
  for (const std::string& file : files) {
    Options global;
    for (auto& [name, options] : sections_of(file)) {
      if (name == "global") {
        global.insert(global.end(), options.begin(), options.end());
        continue;
      }
      Options all = global;
      all.insert(all.end(), options.begin(), options.end());
      own.emplace_back(name, all);
    }
  }
  for (auto& [name, options] : own) {
    Job job;
    job.name = name;
    for (auto& [key, value] : common) set(job, key, value);
    for (auto& [key, value] : options) set(job, key, value);
    check(job);
    settings.jobs.push_back(job);
  }
  if (settings.jobs.empty())
    throw std::invalid_argument("no jobs: give a job file, or --name=NAME and its options");
  return settings;
}

}  // namespace fs3::usrbio::fio
