// A small register byte code and a program for it: Collatz lengths, gcd and a checksum.
#pragma once
#include "bench.h"
enum op { ADD, ADDI, SUB, MULI, AND, XOR, SHR, JZ, JNZ, JLT, JMP, MOV, MOVI, HALT };
struct insn {
    uint8_t op, d, a, b;
    int32_t imm;
};
// r0 n, r1 limit, r2 x, r3 steps, r4 checksum, r5 scratch, r6 a, r7 b
static const struct insn code[] = {
    {MOVI, 0, 0, 0, 1},                                                 // 0
    {MOV, 2, 0, 0, 0},  {MOVI, 3, 0, 0, 0},                             // 1 outer
    {MOVI, 6, 0, 0, 1}, {AND, 5, 2, 6, 0}, {JNZ, 0, 5, 0, 7},           // 3 inner: odd?
    {SHR, 2, 2, 0, 1},  {JZ, 0, 5, 0, 10},                              // 6; 7 even skips
    {MULI, 2, 2, 0, 3}, {ADDI, 2, 2, 0, 1},                             // 8
    {ADDI, 3, 3, 0, 1}, {SUB, 5, 2, 6, 0}, {JNZ, 0, 5, 0, 3},           // 10
    {XOR, 4, 4, 3, 0},  {MULI, 4, 4, 0, 31}, {ADD, 4, 4, 0, 0},         // 13
    {ADDI, 0, 0, 0, 1}, {JLT, 0, 0, 1, 1},                              // 16
    {HALT, 0, 0, 0, 0},
};
