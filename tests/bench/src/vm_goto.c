// The same byte code dispatched by computed goto.
#include "vm.h"
__attribute__((noinline)) static uint64_t run(const struct insn *p, uint64_t limit) {
    static const void *const labels[] = {&&add, &&addi, &&sub, &&muli, &&and, &&xor, &&shr,
                                         &&jz, &&jnz, &&jlt, &&jmp, &&mov, &&movi, &&halt};
    uint64_t r[8] = {0, limit};
    const struct insn *const start = p;
    struct insn i;
#define NEXT do { i = *p++; goto *labels[i.op]; } while (0)
    NEXT;
add: r[i.d] = r[i.a] + r[i.b]; NEXT;
addi: r[i.d] = r[i.a] + (int64_t)i.imm; NEXT;
sub: r[i.d] = r[i.a] - r[i.b]; NEXT;
muli: r[i.d] = r[i.a] * (int64_t)i.imm; NEXT;
and: r[i.d] = r[i.a] & r[i.b]; NEXT;
xor: r[i.d] = r[i.a] ^ r[i.b]; NEXT;
shr: r[i.d] = r[i.a] >> i.imm; NEXT;
jz: if (!r[i.a]) p = start + i.imm; NEXT;
jnz: if (r[i.a]) p = start + i.imm; NEXT;
jlt: if (r[i.a] < r[i.b]) p = start + i.imm; NEXT;
jmp: p = start + i.imm; NEXT;
mov: r[i.d] = r[i.a]; NEXT;
movi: r[i.d] = (int64_t)i.imm; NEXT;
halt: return r[4];
}
int main(void) {
    const struct insn *p = code;
    bench_hide(p);
    bench_start();
    bench_end("vm_goto", "integer", run(p, 24000));
}
