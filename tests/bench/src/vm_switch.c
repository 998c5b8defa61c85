// A byte-code interpreter dispatched by a switch.
#include "vm.h"
__attribute__((noinline)) static uint64_t run(const struct insn *p, uint64_t limit) {
    uint64_t r[8] = {0, limit};
    const struct insn *const start = p;
    for (;;) {
        struct insn i = *p++;
        switch (i.op) {
        case ADD: r[i.d] = r[i.a] + r[i.b]; break;
        case ADDI: r[i.d] = r[i.a] + (int64_t)i.imm; break;
        case SUB: r[i.d] = r[i.a] - r[i.b]; break;
        case MULI: r[i.d] = r[i.a] * (int64_t)i.imm; break;
        case AND: r[i.d] = r[i.a] & r[i.b]; break;
        case XOR: r[i.d] = r[i.a] ^ r[i.b]; break;
        case SHR: r[i.d] = r[i.a] >> i.imm; break;
        case JZ: if (!r[i.a]) p = start + i.imm; break;
        case JNZ: if (r[i.a]) p = start + i.imm; break;
        case JLT: if (r[i.a] < r[i.b]) p = start + i.imm; break;
        case JMP: p = start + i.imm; break;
        case MOV: r[i.d] = r[i.a]; break;
        case MOVI: r[i.d] = (int64_t)i.imm; break;
        default: return r[4];
        }
    }
}
int main(void) {
    const struct insn *p = code;
    bench_hide(p);
    bench_start();
    bench_end("vm_switch", "integer", run(p, 24000));
}
