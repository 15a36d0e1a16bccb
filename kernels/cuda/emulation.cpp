#include "emulation.h"

#include <cstdarg>
#include <cstdio>
#include <csignal>
#include <cstdlib>
#include <random>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulated {

namespace {

constexpr size_t STACK = 256 << 10;
constexpr size_t MAX_SHARED = 227 << 10;
constexpr unsigned WARP = 32;
constexpr unsigned BARRIERS = 16;

// ---- fibers ----

#if defined(__x86_64__)
using Context = void *;

extern "C" void lr_emulated_switch(void **save, void *load);
asm(R"(
.text
.globl lr_emulated_switch
.type lr_emulated_switch, @function
lr_emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size lr_emulated_switch, .-lr_emulated_switch
)");

void prepare(Context &context, unsigned char *stack, void (*entry)()) {
    // As after a call of `entry` that pushed six registers: the stack is 8 off a multiple of 16 there.
    auto *top = reinterpret_cast<void **>(stack + STACK - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context = top;
}

void change(Context &save, Context &load) {
    lr_emulated_switch(&save, load);
}
#else
using Context = ucontext_t;

void prepare(Context &context, unsigned char *stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}

void change(Context &save, Context &load) {
    swapcontext(&save, &load);
}
#endif

enum class State { Ready, AtCollective, AtBarrier, AtPhase, Done };

struct Copy {
    unsigned char *to;
    const unsigned char *from;
    unsigned bytes;
    bool zero;
};

struct EngineCopy {
    Copy copy;
    PhaseBarrier *barrier;
};

constexpr uint16_t INITIALISED = 0xBA44;

// The phase ends if nothing is missing.
void end_phase(PhaseBarrier &b) {
    if (b.missing > 0 || b.bytes != 0) return;
    ++b.phase;
    b.missing = b.wanted;
}

} // namespace

struct Lane {
    Context context;
    Place place;
    State state;
    bool began;
    unsigned barrier, barrier_threads;
    const PhaseBarrier *phase_barrier;
    unsigned parity;
    const char *what;
    void *data;
    void (*work)(void **);
    std::vector<std::vector<Copy>> groups; // closed ones, oldest first
    std::vector<Copy> open;
};

thread_local Lane *running = nullptr;

namespace {

// Pages that end at one that can't be touched.
class Region {
  public:
    explicit Region(size_t bytes) : bytes_((bytes + 4095) / 4096 * 4096) {
        start_ = static_cast<unsigned char *>(
            mmap(nullptr, bytes_ + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (start_ == MAP_FAILED) abort();
        mprotect(start_ + bytes_, 4096, PROT_NONE);
    }
    ~Region() { munmap(start_, bytes_ + 4096); }
    Region(const Region &) = delete;
    Region &operator=(const Region &) = delete;
    unsigned char *start() const { return start_; }
    // Room for so many bytes before that page, aligned as descriptors of matrices need it.
    unsigned char *ending(size_t bytes) const { return start_ + bytes_ - (bytes + 1023) / 1024 * 1024; }

  private:
    size_t bytes_;
    unsigned char *start_;
};

struct sigaction former_handler;

// Says who touched memory that is not there, and lets things take their course.
void explain_fault(int, siginfo_t *info, void *) {
    if (running) {
        char text[200];
        const Place &p = running->place;
        const int n = snprintf(text, sizeof text, "\nemulated GPU: block %u,%u, thread %u touched %p, which is beyond a buffer\n",
                               p.block.x, p.block.y, p.thread.x, info->si_addr);
        if (write(2, text, static_cast<size_t>(n)) < 0) abort();
    }
    sigaction(SIGSEGV, &former_handler, nullptr);
}

bool watch_faults() {
    struct sigaction action = {};
    action.sa_sigaction = explain_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    return sigaction(SIGSEGV, &action, &former_handler) == 0;
}

// What one host thread runs: a block at a time.
struct Machine {
    Context scheduler;
    std::vector<Lane> lanes;
    std::vector<EngineCopy> engine; // under way
    Region stacks{1024 * STACK};
    Region shared{MAX_SHARED};
    unsigned char *shared_start = nullptr;
    const std::function<void()> *kernel = nullptr;
    bool failed = false;
    char message[512];
    std::mt19937 random{1};
    enum class Order { Forward, Backward, Random } order = Order::Forward;

    Machine() {
        const char *text = getenv("LR_EMULATED_ORDER");
        if (text && !strcmp(text, "backward")) order = Order::Backward;
        if (text && !strcmp(text, "random")) order = Order::Random;
    }

    unsigned pick(unsigned i, unsigned count, unsigned turn) const {
        switch (order) {
        case Order::Forward: return i;
        case Order::Backward: return count - 1 - i;
        case Order::Random: return (i * 7 + turn) % count; // 7 and a power of two have no common divisor
        }
        return i;
    }

    bool run_block(dim3 block, dim3 grid, unsigned threads);
    bool step_warp(unsigned warp);
    void finish_collective(unsigned first, unsigned end);
    bool release_barriers();
    bool release_phases();
    bool deliver_copy();
    void explain_deadlock();
    void leave() { change(running->context, scheduler); }
};

Machine &machine() {
    static thread_local Machine machine;
    return machine;
}

void enter() {
    (*machine().kernel)();
    if (!running->began) fail("a thread ended that had not waited for earlier kernels");
    running->state = State::Done;
    machine().leave();
    abort();
}

} // namespace

const Place &place() {
    return running->place;
}

unsigned char *shared_memory() {
    return machine().shared_start;
}

void fail(const char *format, ...) {
    Machine &m = machine();
    char text[300];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    const Place &p = running->place;
    snprintf(m.message, sizeof m.message, "%s (block %u,%u, thread %u)", text, p.block.x, p.block.y, p.thread.x);
    m.failed = true;
    m.leave();
    abort();
}

void began() {
    running->began = true;
}

void barrier(unsigned id, unsigned threads) {
    if (id >= BARRIERS || threads % WARP) fail("barrier %u for %u threads", id, threads);
    running->barrier = id;
    running->barrier_threads = threads;
    running->state = State::AtBarrier;
    machine().leave();
}

void collective(const char *what, void *data, void (*work)(void **)) {
    running->what = what;
    running->data = data;
    running->work = work;
    running->state = State::AtCollective;
    machine().leave();
}

void copy_later(void *to, const void *from, unsigned bytes, bool zero) {
    if (reinterpret_cast<uintptr_t>(to) % bytes || (!zero && reinterpret_cast<uintptr_t>(from) % bytes)) {
        fail("a copy of %u bytes from %p to %p is not aligned", bytes, from, to);
    }
    memset(to, 0xFF, bytes);
    running->open.push_back({static_cast<unsigned char *>(to), static_cast<const unsigned char *>(from), bytes, zero});
}

void close_copy_group() {
    running->groups.push_back(std::move(running->open));
    running->open.clear();
}

void wait_for_copy_groups(unsigned left_open) {
    auto &groups = running->groups;
    while (groups.size() > left_open) {
        for (const Copy &copy : groups.front()) {
            if (copy.zero) memset(copy.to, 0, copy.bytes);
            else memcpy(copy.to, copy.from, copy.bytes);
        }
        groups.erase(groups.begin());
    }
}

void phase_init(PhaseBarrier &barrier, unsigned arrivals) {
    barrier = {0, static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), INITIALISED, 0};
}

namespace {

PhaseBarrier &checked(PhaseBarrier &barrier) {
    if (barrier.magic != INITIALISED) fail("a barrier of phases that was not initialised");
    return barrier;
}

} // namespace

void phase_arrive(PhaseBarrier &barrier, unsigned bytes) {
    PhaseBarrier &b = checked(barrier);
    if (b.missing == 0) fail("more arrivals than the %u of a phase", b.wanted);
    b.bytes += bytes;
    --b.missing;
    end_phase(b);
}

void phase_wait(const PhaseBarrier &barrier, unsigned parity) {
    checked(const_cast<PhaseBarrier &>(barrier));
    if (barrier.phase % 2 != parity) return;
    running->phase_barrier = &barrier;
    running->parity = parity;
    running->state = State::AtPhase;
    machine().leave();
}

void engine_copy(void *to, const void *from, unsigned bytes, PhaseBarrier &barrier) {
    if (bytes % 16 || reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16) {
        fail("a copy of %u bytes from %p to %p by the copy engine is not of whole sixteens", bytes, from, to);
    }
    memset(to, 0xFF, bytes);
    const Copy copy{static_cast<unsigned char *>(to), static_cast<const unsigned char *>(from), bytes, false};
    machine().engine.push_back({copy, &checked(barrier)});
}

namespace {

// Runs the lanes of a warp that can run, once each; false if none could.
bool Machine::step_warp(unsigned warp) {
    const unsigned first = warp * WARP, count = std::min<size_t>(WARP, lanes.size() - first);
    bool ran = false, progress = true;
    while (progress && !failed) {
        progress = false;
        const unsigned turn = order == Order::Random ? random() % count : 0;
        for (unsigned i = 0; i < count && !failed; ++i) {
            Lane &lane = lanes[first + pick(i, count, turn)];
            if (lane.state != State::Ready) continue;
            running = &lane;
            change(scheduler, lane.context);
            progress = ran = true;
        }
        if (failed) break;
        unsigned waiting = 0;
        for (unsigned i = 0; i < count; ++i) waiting += lanes[first + i].state == State::AtCollective;
        if (waiting == count) {
            finish_collective(first, first + count);
            progress = ran = true;
        }
    }
    return ran;
}

void Machine::finish_collective(unsigned first, unsigned end) {
    void *data[WARP];
    for (unsigned i = first; i < end; ++i) {
        if (strcmp(lanes[i].what, lanes[first].what)) {
            running = &lanes[i];
            failed = true;
            snprintf(message, sizeof message, "lanes %u and %u of a warp meet in %s and %s", 0u, i - first,
                     lanes[first].what, lanes[i].what);
            return;
        }
        data[i - first] = lanes[i].data;
    }
    if (end - first != WARP) {
        failed = true;
        snprintf(message, sizeof message, "%s in a warp of %u lanes", lanes[first].what, end - first);
        return;
    }
    lanes[first].work(data);
    for (unsigned i = first; i < end; ++i) lanes[i].state = State::Ready;
}

bool Machine::release_barriers() {
    unsigned there[BARRIERS] = {}, wanted[BARRIERS] = {};
    for (Lane &lane : lanes) {
        if (lane.state != State::AtBarrier) continue;
        ++there[lane.barrier];
        if (wanted[lane.barrier] && wanted[lane.barrier] != lane.barrier_threads) {
            failed = true;
            snprintf(message, sizeof message, "barrier %u for %u and for %u threads", lane.barrier, wanted[lane.barrier],
                     lane.barrier_threads);
            return false;
        }
        wanted[lane.barrier] = lane.barrier_threads;
    }
    bool released = false;
    for (Lane &lane : lanes) {
        if (lane.state == State::AtBarrier && there[lane.barrier] == wanted[lane.barrier]) {
            lane.state = State::Ready;
            released = true;
        }
    }
    return released;
}

bool Machine::release_phases() {
    bool released = false;
    for (Lane &lane : lanes) {
        if (lane.state == State::AtPhase && lane.phase_barrier->phase % 2 != lane.parity) {
            lane.state = State::Ready;
            released = true;
        }
    }
    return released;
}

// Ends one of the copies under way; false if there is none.
bool Machine::deliver_copy() {
    if (engine.empty()) return false;
    const size_t i = order == Order::Forward ? 0 : order == Order::Backward ? engine.size() - 1 : random() % engine.size();
    const EngineCopy done = engine[i];
    engine.erase(engine.begin() + static_cast<ptrdiff_t>(i));
    memcpy(done.copy.to, done.copy.from, done.copy.bytes);
    done.barrier->bytes -= done.copy.bytes;
    end_phase(*done.barrier);
    return true;
}

void Machine::explain_deadlock() {
    unsigned at_barrier = 0, at_phase = 0, at_collective = 0, done = 0;
    const char *what = "";
    for (const Lane &lane : lanes) {
        at_barrier += lane.state == State::AtBarrier;
        at_phase += lane.state == State::AtPhase;
        done += lane.state == State::Done;
        if (lane.state == State::AtCollective) {
            ++at_collective;
            what = lane.what;
        }
    }
    failed = true;
    snprintf(message, sizeof message, "deadlock: %u threads at a barrier, %u at the end of a phase, %u in %s, %u at the end", at_barrier,
             at_phase, at_collective, at_collective ? what : "collective operations", done);
}

bool Machine::run_block(dim3 block, dim3 grid, unsigned threads) {
    lanes.resize(threads);
    for (unsigned i = 0; i < threads; ++i) {
        Lane &lane = lanes[i];
        lane.place = {{i, 0, 0}, block, {threads, 1, 1}, grid, i % WARP, i / WARP};
        lane.state = State::Ready;
        lane.began = false;
        lane.groups.clear();
        lane.open.clear();
        prepare(lane.context, stacks.start() + i * STACK, enter);
    }
    engine.clear();
    const unsigned warps = (threads + WARP - 1) / WARP;
    while (!failed) {
        bool ran = false;
        const unsigned turn = order == Order::Random ? random() % warps : 0;
        for (unsigned w = 0; w < warps; ++w) {
            const unsigned warp = order == Order::Random ? (w + turn) % warps : pick(w, warps, 0);
            ran |= step_warp(warp);
            if (failed) return false;
        }
        bool done = true;
        for (const Lane &lane : lanes) done &= lane.state == State::Done;
        if (done && !engine.empty()) {
            failed = true;
            snprintf(message, sizeof message, "%zu copies by the copy engine that nobody waited for", engine.size());
            return false;
        }
        if (done) return true;
        if (order == Order::Random) {
            for (unsigned early = random() % 8; early > 0 && deliver_copy();) --early;
        }
        const bool released = release_barriers() | release_phases();
        if (!ran && !released && !failed && !deliver_copy()) explain_deadlock();
    }
    return false;
}

} // namespace

bool run_grid(dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()> &kernel, char *error, size_t n) {
    static const bool watched = watch_faults();
    (void)watched;
    Machine &m = machine();
    if (threads == 0 || threads > 1024 || shared_bytes > MAX_SHARED) {
        snprintf(error, n, "a launch of %u threads a block with %zu bytes of shared memory", threads, shared_bytes);
        return false;
    }
    struct Reset {
        ~Reset() { running = nullptr; }
    } reset;
    m.kernel = &kernel;
    m.failed = false;
    for (unsigned y = 0; y < grid.y; ++y) {
        for (unsigned x = 0; x < grid.x; ++x) {
            m.shared_start = m.shared.ending(shared_bytes);
            memset(m.shared_start, 0xFF, (shared_bytes + 1023) / 1024 * 1024);
            if (!m.run_block({x, y, 0}, grid, threads)) {
                snprintf(error, n, "%s", m.message);
                return false;
            }
        }
    }
    return true;
}

} // namespace emulated
