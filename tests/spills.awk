# spills.awk - reads `objdump -d --no-show-raw-insn` of the compiled header and looks at the inner
# loops of the kernels. Sums that do not fit the registers show there as vectors written to the
# stack. A loop is a jump backwards to an address; an inner one holds no other. Loops without
# vectors, which only prefetch, do not count. A loop around one of them may have two stores: so has
# that of 6 rows of q6_0 by GCC, and with 4 rows, which need none, it is 4 % slower.
#
# The sixteen registers of AVX2 hold the sums of one row in int8, but two rows are a fifth faster
# with some of them on the stack: those layers and the RG-LRU, long chains of exp, are exempt.
#
# Prints a line for each loop that spills, and "N passed, N failed": kernels.

function number(hex,    i, value) {
    for (i = 1; i <= length(hex); i++) value = value * 16 + index("0123456789abcdef", substr(hex, i, 1)) - 1
    return value
}

# Does loop i hold loop j?
function holds(i, j) {
    return target[j] >= target[i] && source[j] <= source[i] && source[j] - target[j] < source[i] - target[i]
}

function finish(    i, j, inner, stores, bad) {
    for (i = 1; i <= jumps; i++) {
        counts[i] = 0
        for (j = 1; j <= vectors && !counts[i]; j++)
            counts[i] = vector[j] >= target[i] && vector[j] <= source[i]
    }
    for (i = 1; i <= jumps; i++) {
        inner = counts[i]
        stores = 0
        for (j = 1; j <= spills; j++) stores += spill[j] >= target[i] && spill[j] <= source[i]
        for (j = 1; j <= jumps; j++)
            if (holds(i, j)) { if (counts[j]) inner = 0; else if (stores <= 2) stores = 0 }
        if (!inner || !stores) continue
        printf "%s: %d vectors to the stack in the loop at %x\n", name, stores, target[i]
        bad = 1
    }
    if (bad) failed++; else passed++
}

/^[0-9a-f]+ <.*>:$/ {
    if (name) finish()
    name = substr($2, 2, length($2) - 3)
    if (name !~ /^grf_((float|int)_tile|attend|norm_row|layer_norm|conv_row|rglru_row|outer)_avx/ || \
        name ~ /^grf_(int_tile|rglru_row)_avx(2|_vnni)/) name = ""
    jumps = spills = vectors = 0
    next
}

name && /^ *[0-9a-f]+:\t/ {
    at = number(substr($1, 1, length($1) - 1))
    if ($2 ~ /^j/ && $3 ~ /^[0-9a-f]+$/ && number($3) < at) { source[++jumps] = at; target[jumps] = number($3) }
    if ($0 ~ /%[xyz]mm/) vector[++vectors] = at
    if ($2 ~ /^vmov/ && $0 ~ /%[xyz]mm[0-9]+,[-0-9a-fx]*\(%rsp\)/) spill[++spills] = at
}

END { if (name) finish(); print passed + 0 " passed, " failed + 0 " failed"; exit failed || !passed }
